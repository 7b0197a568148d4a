/**
 * Manifests (docs/03-format.md §7): a snapshot exists when its manifest does. Public header, signature, and a
 * sealed body with what only the owner of the data may know.
 */
import type { ObjectStore } from '../storage/store.ts';
import {
  damaged,
  decodeCanonical,
  encodeCanonical,
  Fields,
  HEX64,
  hex,
  RUN_ID,
  SOURCE_NAME,
  sha256,
  whenMissing,
} from './codec.ts';
import type { Ancestor, JsonObject, SnapshotFacts, SnapshotHeader, SnapshotStats } from './contract.ts';
import type { PackListUse } from './pack-list.ts';
import type { Identity } from './recipient.ts';
import type { LoadedRoster } from './roster.ts';
import { openHeader, sealHeader } from './sealed-header.ts';
import { openSection, SectionWriter, sectionKey } from './section.ts';
import { checkSection, checkSignature, decodeHead, encodeSigned, type SignedHead } from './signed-object.ts';
import type { SigningKey } from './signing.ts';

/** A manifest is small whatever the size of the data: listings are in packs. */
export const MANIFEST_LIMIT = 64 << 10;
/** Manifests are compressed hard: they are few, small and read often. */
const BODY_LEVEL = 9;

export const snapshotName = (source: string, id: string, digest: string): string =>
  `snapshots/${source}/${id}-${digest}`;

const NAME = /^snapshots\/([a-z0-9-]{1,40})\/(\d{8}T\d{6}Z-[a-z2-7]{8})-([0-9a-f]{64})$/;

export function parseSnapshotName(name: string): { source: string; id: string; digest: string } | undefined {
  const match = NAME.exec(name);
  return match
    ? { source: match[1] as string, id: match[2] as string, digest: match[3] as string }
    : undefined;
}

/** A chunk of the listing: one frame of one pack. */
export interface ListingChunk {
  readonly pack: string;
  readonly frame: number;
}

/** The sealed body. */
export interface SnapshotBody {
  readonly lists: readonly PackListUse[];
  readonly listing: readonly ListingChunk[];
  readonly meta: JsonObject;
  readonly warnings: readonly string[];
  readonly stats: SnapshotStats;
}

export interface ManifestInput {
  readonly repository: string;
  readonly id: string;
  readonly source: string;
  readonly kind: string;
  readonly sequence: number;
  readonly previous: string | null;
  readonly roster: LoadedRoster;
  readonly started: number;
  readonly finished: number;
  readonly facts: SnapshotFacts;
  readonly body: SnapshotBody;
}

const listsJson = (lists: readonly PackListUse[]) => lists.map(({ digest, bitmap }) => ({ digest, bitmap }));

export const ancestorsJson = (ancestors: readonly Ancestor[]) =>
  ancestors.map(({ lineage, position }) => ({ lineage, position }));

export function encodeManifest(
  input: ManifestInput,
  key: SigningKey,
): { content: Uint8Array[]; digest: string } {
  const { facts, body } = input;
  const claims: JsonObject = {
    format: 1,
    type: 'snapshot',
    repository: input.repository,
    id: input.id,
    source: input.source,
    kind: input.kind,
    writer: key.id,
    sequence: input.sequence,
    previous: input.previous,
    roster: input.roster.digest,
    epoch: input.roster.roster.epoch,
    lineage: facts.lineage,
    ancestors: ancestorsJson(facts.ancestors),
    from: facts.from,
    to: facts.to,
    started: input.started,
    finished: input.finished,
    sourceStarted: facts.sourceStarted,
    sourceFinished: facts.sourceFinished,
    files: body.stats.files,
    bytes: body.stats.bytes,
    storedBytes: body.stats.storedBytes,
    lists: listsJson(body.lists),
  };
  const { header, digest, secret } = sealHeader(claims, input.roster.recipientKeys);
  const section: Uint8Array[] = [];
  const writer = new SectionWriter(sectionKey(secret, digest), BODY_LEVEL, (bytes) => section.push(bytes));
  writer.frame(
    encodeCanonical({
      lists: listsJson(body.lists),
      listing: body.listing.map(({ pack, frame }) => ({ pack, frame })),
      meta: body.meta,
      warnings: body.warnings,
      stats: { ...body.stats },
    }),
  );
  writer.end();
  const encoded = encodeSigned('snapshot', header, section, key);
  if (encoded.bytes > MANIFEST_LIMIT) throw new RangeError(`the manifest has ${encoded.bytes} bytes`);
  return encoded;
}

export function decodeAncestors(fields: Fields): Ancestor[] {
  return fields
    .objects('ancestors')
    .map((a) => ({ lineage: a.string('lineage'), position: a.string('position') }));
}

/** Reads a header out of a checked head; its signature was checked by the caller. */
export function snapshotHeader(
  head: Pick<SignedHead, 'header'>,
  name: string,
  storedAt: number,
): SnapshotHeader {
  const fields = new Fields(head.header, name);
  const parsed = parseSnapshotName(name);
  const source = fields.string('source', SOURCE_NAME);
  const id = fields.string('id', RUN_ID);
  if (parsed === undefined || parsed.source !== source || parsed.id !== id) {
    throw damaged(name, 'its name is not the one that it carries');
  }
  return {
    id,
    digest: parsed.digest,
    name,
    source,
    kind: fields.string('kind'),
    writer: fields.string('writer'),
    sequence: fields.integer('sequence', 1),
    previous: fields.stringOrNull('previous', HEX64),
    lineage: fields.string('lineage'),
    ancestors: decodeAncestors(fields),
    from: fields.string('from'),
    to: fields.string('to'),
    started: fields.integer('started'),
    finished: fields.integer('finished'),
    sourceStarted: fields.integer('sourceStarted'),
    sourceFinished: fields.integer('sourceFinished'),
    bytes: fields.integer('bytes'),
    storedBytes: fields.integer('storedBytes'),
    files: fields.integer('files'),
    storedAt,
  };
}

export function decodeLists(fields: Fields): PackListUse[] {
  return fields
    .objects('lists')
    .map((list) => ({ digest: list.string('digest', HEX64), bitmap: list.stringOrNull('bitmap') }));
}

/** Reads a manifest whole: signature, section and the equality of its public and sealed pack lists. */
export async function openManifest(
  store: ObjectStore,
  name: string,
  roster: LoadedRoster,
  repository: string,
  identity: Identity,
  signal: AbortSignal,
): Promise<SnapshotBody> {
  const bytes = await store.get(name, { signal }).catch(whenMissing(name));
  if (bytes.length > MANIFEST_LIMIT) throw damaged(name, 'it is too large');
  // Also an honest manifest is not this one when it lies under another name.
  if (hex(sha256(bytes)) !== parseSnapshotName(name)?.digest)
    throw damaged(name, 'its bytes do not match its name');
  const head = decodeHead('snapshot', bytes, name);
  const fields = new Fields(head.header, name);
  if (fields.string('repository') !== repository) throw damaged(name, 'it belongs to another repository');
  checkSignature(
    'snapshot',
    head,
    roster.keyFor(fields.string('writer'), fields.string('source'), name),
    name,
  );
  const section = bytes.subarray(head.sectionStart);
  checkSection(head, section, name);
  const body = new Fields(
    decodeCanonical(openSection(openHeader(head.core, identity, name), section, name).frame(0), name),
    name,
  );
  const lists = decodeLists(body);
  if (JSON.stringify(lists) !== JSON.stringify(decodeLists(fields))) {
    throw damaged(name, 'its public pack lists are not its sealed ones');
  }
  const stats = body.object('stats');
  return {
    lists,
    listing: body
      .objects('listing')
      .map((c) => ({ pack: c.string('pack', HEX64), frame: c.integer('frame') })),
    meta: body.object('meta').raw,
    warnings: body.strings('warnings'),
    stats: {
      files: stats.integer('files'),
      bytes: stats.integer('bytes'),
      storedBytes: stats.integer('storedBytes'),
      packs: stats.integer('packs'),
      durationMs: stats.integer('durationMs'),
    },
  };
}
