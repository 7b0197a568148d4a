/** Opening snapshots and log parts with the decryption identity. */
import type { RunContext } from '../core/context.ts';
import type { ObjectStore } from '../storage/store.ts';
import { damaged, Fields, whenMissing } from './codec.ts';
import { decodeCommits } from './commit-index.ts';
import type {
  Entry,
  ExtractOptions,
  LogPartContent,
  LogPartHeader,
  OpenedSnapshot,
  RepositoryReader,
  SnapshotHeader,
} from './contract.ts';
import { extract } from './extract.ts';
import { readListing } from './listing.ts';
import { decodeMarks, decodeMeta, type LogPartName, logPartHeader, parseLogPartName } from './log-part.ts';
import { type PackBinding, PackReader, type SealedBy } from './pack.ts';
import { loadPacks } from './pack-list.ts';
import { PackPool } from './pack-pool.ts';
import { decodeIdentity, type Identity } from './recipient.ts';
import type { LoadedRoster } from './roster.ts';
import { openHeader } from './sealed-header.ts';
import { Extension, openFooter, openFrame, readTrailer, TRAILER_BYTES } from './section.ts';
import { checkSignature, decodeHead, HEAD_BYTES, headLength } from './signed-object.ts';
import { openManifest, type SnapshotBody } from './snapshot.ts';

/** What a reader keeps for a snapshot that it opened. */
interface Opened {
  readonly packs: ReadonlyMap<string, PackBinding>;
  readonly sealedBy: SealedBy;
}

export class StoredReader implements RepositoryReader {
  readonly #store: ObjectStore;
  readonly #repository: string;
  readonly #roster: LoadedRoster;
  readonly #secret: string;
  readonly #identity: Identity;
  readonly #opened = new WeakMap<OpenedSnapshot, Opened>();

  /** `secret` is the repository's decryption identity, proven to be so. */
  constructor(store: ObjectStore, repository: string, roster: LoadedRoster, secret: string) {
    this.#store = store;
    this.#repository = repository;
    this.#roster = roster;
    this.#secret = secret;
    this.#identity = decodeIdentity(secret);
  }

  async openSnapshot(header: SnapshotHeader, signal: AbortSignal): Promise<OpenedSnapshot> {
    const body = await openManifest(
      this.#store,
      header.name,
      this.#roster,
      this.#repository,
      this.#identity,
      signal,
    );
    const packs = await loadPacks(this.#store, body.lists, signal);
    const sealedBy = { repository: this.#repository, source: header.source, writer: header.writer };
    const snapshot: OpenedSnapshot = {
      header,
      meta: body.meta,
      warnings: body.warnings,
      stats: body.stats,
      entries: (abort) =>
        readListing(this.#listingChunks(body, packs, sealedBy, header.name, abort), header.name),
    };
    this.#opened.set(snapshot, { packs, sealedBy });
    return snapshot;
  }

  async *#listingChunks(
    body: SnapshotBody,
    packs: ReadonlyMap<string, PackBinding>,
    sealedBy: SealedBy,
    what: string,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    let open: PackReader | undefined;
    for (const { pack, frame } of body.listing) {
      if (open?.binding.digest !== pack) {
        const binding = packs.get(pack);
        if (binding === undefined)
          throw damaged(what, `its listing lies in the pack ${pack}, which it does not name`);
        open = await PackReader.open(this.#store, binding, sealedBy, this.#identity, signal);
      }
      yield await open.frame(frame);
    }
  }

  #of(snapshot: OpenedSnapshot): Opened {
    const opened = this.#opened.get(snapshot);
    if (opened === undefined) throw new Error('this snapshot was not opened by this reader');
    return opened;
  }

  async extract(snapshot: OpenedSnapshot, options: ExtractOptions, context: RunContext) {
    const { packs, sealedBy } = this.#of(snapshot);
    const pool = new PackPool({ identity: this.#secret, sealedBy });
    try {
      const entries = snapshot.entries(context.signal);
      const { store, what } = { store: this.#store, what: snapshot.header.name };
      return await extract({ store, packs, pool, entries, options, context, what });
    } finally {
      await pool.close();
    }
  }

  /** Opens every frame of every pack that the snapshot names and walks its listing. Writes nothing. */
  async authenticate(
    snapshot: OpenedSnapshot,
    context: RunContext,
    onPack: (bytes: number) => void,
  ): Promise<void> {
    const { packs, sealedBy } = this.#of(snapshot);
    const frames = new Map<string, number>();
    for (const [digest, binding] of packs) {
      context.signal.throwIfAborted();
      const reader = await PackReader.open(this.#store, binding, sealedBy, this.#identity, context.signal);
      for (let number = 0; number < reader.frameCount; number++) await reader.frame(number);
      frames.set(digest, reader.frameCount);
      onPack(binding.bytes);
    }
    for await (const entry of snapshot.entries(context.signal)) {
      for (const { pack, frame } of entry.extents) {
        if (pack !== null && frame >= (frames.get(pack) ?? 0)) {
          throw damaged(snapshot.header.name, `${entry.path} needs a frame that does not exist`);
        }
      }
    }
  }

  async readEntry(snapshot: OpenedSnapshot, entry: Entry, signal: AbortSignal): Promise<Uint8Array> {
    const { packs, sealedBy } = this.#of(snapshot);
    const pieces: Uint8Array[] = [];
    for (const { length, pack, frame, offset } of entry.extents) {
      if (pack === null) {
        pieces.push(new Uint8Array(length));
        continue;
      }
      const binding = packs.get(pack);
      if (binding === undefined) throw damaged(snapshot.header.name, `its listing uses the pack ${pack}`);
      const reader = await PackReader.open(this.#store, binding, sealedBy, this.#identity, signal);
      const plain = await reader.frame(frame);
      if (offset + length > plain.length)
        throw damaged(snapshot.header.name, `${entry.path} reaches over its frame`);
      pieces.push(plain.subarray(offset, offset + length));
    }
    return Buffer.concat(pieces);
  }

  async openPart(header: LogPartHeader, signal: AbortSignal): Promise<LogPartContent> {
    const { name } = header;
    const store = this.#store;
    let first = await store.get(name, { length: HEAD_BYTES, signal }).catch(whenMissing(name));
    const headBytes = headLength('log-part', first, name);
    if (headBytes > first.length) first = await store.get(name, { length: headBytes, signal });
    const head = decodeHead('log-part', first, name);
    const fields = new Fields(head.header, name);
    if (fields.string('repository') !== this.#repository)
      throw damaged(name, 'it belongs to another repository');
    checkSignature('log-part', head, this.#roster.keyFor(fields.string('writer'), header.source, name), name);
    checkSame(logPartHeader(head, partName(name), header.storedBytes, header.storedAt), header);
    const key = openHeader(head.core, this.#identity, name);
    const { sectionStart } = head;
    const sectionEnd = sectionStart + head.section.bytes;
    const trailer = await store.get(name, {
      offset: sectionEnd - TRAILER_BYTES,
      length: TRAILER_BYTES,
      signal,
    });
    const place = readTrailer(trailer, name);
    const footerStart = sectionEnd - TRAILER_BYTES - place.sealed;
    if (footerStart < sectionStart) throw damaged(name, 'it is cut short');
    const sealedFooter = await store.get(name, { offset: footerStart, length: place.sealed, signal });
    const footer = openFooter(key, trailer, sealedFooter, footerStart - sectionStart, name);
    async function* data(): AsyncIterable<Uint8Array> {
      for (const [number, frame] of footer.frames.entries()) {
        const sealed = await store.get(name, {
          offset: sectionStart + frame.offset,
          length: frame.sealed,
          signal,
        });
        yield openFrame(key, footer, number, sealed, name);
      }
    }
    const commits = footer.extensions.get(Extension.commits);
    const meta = decodeMeta(footer.extensions.get(Extension.meta), name);
    return {
      header,
      meta,
      marks: decodeMarks(meta, name),
      commits: commits === undefined ? [] : decodeCommits(commits, name),
      data,
    };
  }
}

function partName(name: string): LogPartName {
  const parsed = parseLogPartName(name);
  if (parsed === undefined) throw damaged(name, 'its name is not one of a log part');
  return parsed;
}

/** The object may have been swapped for a sibling since its header was read. */
function checkSame(found: LogPartHeader, expected: LogPartHeader): void {
  const same =
    found.writer === expected.writer &&
    found.sequence === expected.sequence &&
    found.previous === expected.previous &&
    found.lineage === expected.lineage &&
    found.closed === expected.closed &&
    found.bytes === expected.bytes;
  if (!same) throw damaged(expected.name, 'it is not the part that was listed');
}
