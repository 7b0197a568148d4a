/** Log parts (docs/03-format.md §7): one immutable object holding a stretch of a source's log. */
import { damaged, decodeCanonical, encodeCanonical, Fields, HEX64, RUN_ID, SOURCE_NAME } from './codec.ts';
import { encodeCommits } from './commit-index.ts';
import type { Commit, JsonObject, LogPartHeader, LogStretch, Mark, PartTimes } from './contract.ts';
import type { LoadedRoster } from './roster.ts';
import { sealHeader } from './sealed-header.ts';
import { Extension, FRAME_BYTES, SectionWriter, sectionKey } from './section.ts';
import { encodeSigned, type SignedHead } from './signed-object.ts';
import type { SigningKey } from './signing.ts';
import { ancestorsJson, decodeAncestors } from './snapshot.ts';

const PART_LEVEL = 1;
const POSITION = '[A-Za-z0-9]{1,40}';
const NAME = new RegExp(
  `^logs/([a-z0-9-]{1,40})/(\\d{8}T\\d{6}Z-[a-z2-7]{8})/(${POSITION})-(${POSITION})-([0-9a-f]{64})$`,
);

/**
 * The name carries both ends, so that a reader can choose the covering parts (merged ones before those that
 * they replace) from the listing alone, and reads the heads of only those.
 */
export function logPartName(
  source: string,
  stream: string,
  from: string,
  to: string,
  digest: string,
): string {
  return `logs/${source}/${stream}/${from}-${to}-${digest}`;
}

export interface LogPartName {
  readonly name: string;
  readonly source: string;
  readonly stream: string;
  readonly from: string;
  readonly to: string;
  readonly digest: string;
}

export function parseLogPartName(name: string): LogPartName | undefined {
  const match = NAME.exec(name);
  if (match === null) return undefined;
  const [, source, stream, from, to, digest] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  return { name, source, stream, from, to, digest };
}

/** A part's place in its stream. */
export interface PartPlace {
  readonly stream: string;
  readonly sequence: number;
  readonly previous: string | null;
  readonly replaces: { readonly last: number; readonly digest: string } | null;
}

/** Everything a part's section is made from; small enough to be copied to a worker. */
export interface SectionInput {
  readonly secret: Uint8Array;
  readonly headerDigest: Uint8Array;
  readonly data: readonly Uint8Array[];
  readonly commits: Uint8Array;
  readonly meta: Uint8Array;
}

export interface PreparedPart {
  readonly header: JsonObject;
  readonly section: SectionInput;
}

export function partTimes(commits: readonly Commit[]): PartTimes | null {
  const first = commits[0];
  const last = commits.at(-1);
  if (first === undefined || last === undefined) return null;
  let min = first.time;
  let max = first.time;
  for (const { time } of commits) {
    if (time < min) min = time;
    if (time > max) max = time;
  }
  return { first: String(first.time), last: String(last.time), min: String(min), max: String(max) };
}

/** Makes the header and what the section is encoded from. */
export function preparePart(
  options: {
    readonly repository: string;
    readonly source: string;
    readonly kind: string;
    readonly place: PartPlace;
    readonly roster: LoadedRoster;
    readonly writer: string;
    readonly closed: number;
  },
  stretch: LogStretch,
): PreparedPart {
  const { place } = options;
  const times = partTimes(stretch.commits);
  const { marks = [] } = stretch;
  const claims: JsonObject = {
    format: 1,
    type: 'log-part',
    repository: options.repository,
    source: options.source,
    kind: options.kind,
    writer: options.writer,
    roster: options.roster.digest,
    epoch: options.roster.roster.epoch,
    stream: place.stream,
    sequence: place.sequence,
    previous: place.previous,
    replaces: place.replaces === null ? null : { ...place.replaces },
    lineage: stretch.lineage,
    ancestors: ancestorsJson(stretch.ancestors),
    from: stretch.from,
    to: stretch.to,
    times: times === null ? null : { ...times },
    bytes: stretch.data.reduce((sum, part) => sum + part.length, 0),
    closed: options.closed,
    ...(marks.length === 0 ? {} : { marks: marks.length }),
  };
  const { header, digest, secret } = sealHeader(claims, options.roster.recipientKeys);
  return {
    header,
    section: {
      secret,
      headerDigest: digest,
      data: stretch.data,
      commits: encodeCommits(stretch.commits),
      meta: encodeCanonical(
        marks.length === 0 ? stretch.meta : { ...stretch.meta, marks: marks.map(markJson) },
      ),
    },
  };
}

function markJson({ name, position, time }: Mark): JsonObject {
  return { name, position: String(position), time: String(time) };
}

/** The marks among a part's facts. */
export function decodeMarks(meta: JsonObject, what: string): Mark[] {
  if (meta.marks === undefined) return [];
  if (!Array.isArray(meta.marks)) throw damaged(what, 'its named places are malformed');
  return meta.marks.map((item: JsonObject) => {
    const fields = new Fields(item, what);
    const number = (name: string) => BigInt(fields.string(name, /^-?\d{1,20}$/));
    return { name: fields.string('name'), position: number('position'), time: number('time') };
  });
}

/** Compresses and encrypts; pure, runs in a worker or here. */
export function encodeSection(input: SectionInput): Uint8Array[] {
  const section: Uint8Array[] = [];
  const writer = new SectionWriter(sectionKey(input.secret, input.headerDigest), PART_LEVEL, (b) =>
    section.push(b),
  );
  for (const frame of frames(input.data)) writer.frame(frame);
  writer.end(
    new Map([
      [Extension.meta, input.meta],
      [Extension.commits, input.commits],
    ]),
  );
  return section;
}

/** Regroups pieces of any size into frames. */
function* frames(pieces: readonly Uint8Array[]): Iterable<Uint8Array> {
  const buffer = new Uint8Array(FRAME_BYTES);
  let used = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const length = Math.min(piece.length - at, FRAME_BYTES - used);
      if (length === FRAME_BYTES) yield piece.subarray(at, at + length);
      else {
        buffer.set(piece.subarray(at, at + length), used);
        used += length;
        if (used === FRAME_BYTES) {
          yield buffer;
          used = 0;
        }
      }
      at += length;
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
}

export interface EncodedPart {
  readonly name: string;
  readonly digest: string;
  readonly content: readonly Uint8Array[];
}

export function finishPart(
  source: string,
  stretch: LogStretch,
  place: PartPlace,
  header: JsonObject,
  section: readonly Uint8Array[],
  key: SigningKey,
): EncodedPart {
  const { content, digest } = encodeSigned('log-part', header, section, key);
  return { name: logPartName(source, place.stream, stretch.from, stretch.to, digest), digest, content };
}

function decodeTimes(fields: Fields | null): PartTimes | null {
  if (fields === null) return null;
  const time = (name: string) => fields.string(name, /^-?\d{1,20}$/);
  return { first: time('first'), last: time('last'), min: time('min'), max: time('max') };
}

/** Reads a header out of a checked head. */
export function logPartHeader(
  head: SignedHead,
  name: LogPartName,
  storedBytes: number,
  storedAt: number,
): LogPartHeader {
  const fields = new Fields(head.header, name.name);
  const same =
    fields.string('source', SOURCE_NAME) === name.source &&
    fields.string('stream', RUN_ID) === name.stream &&
    fields.string('from') === name.from &&
    fields.string('to') === name.to;
  if (!same) throw damaged(name.name, 'its name is not the one that it carries');
  const replaces = fields.objectOrNull('replaces');
  return {
    name: name.name,
    digest: name.digest,
    source: name.source,
    kind: fields.string('kind'),
    writer: fields.string('writer'),
    stream: name.stream,
    sequence: fields.integer('sequence'),
    previous: fields.stringOrNull('previous', HEX64),
    replaces: replaces && { last: replaces.integer('last'), digest: replaces.string('digest', HEX64) },
    lineage: fields.string('lineage'),
    ancestors: decodeAncestors(fields),
    from: name.from,
    to: name.to,
    times: decodeTimes(fields.objectOrNull('times')),
    ...(head.header.marks === undefined ? {} : { marks: fields.integer('marks', 1) }),
    bytes: fields.integer('bytes'),
    storedBytes,
    closed: fields.integer('closed'),
    storedAt,
  };
}

export function decodeMeta(bytes: Uint8Array | undefined, what: string): JsonObject {
  if (bytes === undefined) throw damaged(what, 'it has no facts about itself');
  return decodeCanonical(bytes, what);
}
