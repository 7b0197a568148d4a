/**
 * A whole segment, as archived, into stretches of log like those that a capture stores: cut where records end, so
 * that each commit lies in one part whole, in whichever way the log came.
 *
 * The record that begins in one segment and ends in the next is stored twice: its beginning as the end of the
 * first segment (all of a file is durable before it is acknowledged) and whole with the second.
 */
import { isHoldfastError } from '../../core/errors.ts';
import type { Ancestor, Commit, LogStretch, Mark } from '../../repository/contract.ts';
import { type ArchiveName, longHeaderBytes, type SegmentHeader, shortHeaderBytes } from './archive-file.ts';
import { lineageOf, parseHistory, positionOf } from './position.ts';
import { WalScanner, walPageSize } from './wal-records.ts';

/** A part is never larger; and a record that is, is cut anywhere. */
const partBytes = 24 * 1024 * 1024;
/** Beginnings of records that are remembered until the next segment. */
const carryLimit = 8 * 1024 * 1024;
const rmXact = 1;

/** The beginning of a record that ends in the next segment: the log from `from` to the segment's end. */
export interface Carry {
  readonly from: bigint;
  /** Null for one too long to keep, which holds no commit: the next segment can do without. */
  readonly bytes: Uint8Array | null;
}

/** What is known of the timeline that a segment belongs to. */
export interface TimelineFacts {
  readonly ancestors: readonly Ancestor[];
  /** Where it left its parent; null for the first. */
  readonly fork: bigint | null;
  readonly parent: number | null;
  /** `00000002.history` → text. */
  readonly histories: Readonly<Record<string, string>>;
}

/** The facts in a timeline's history file; `histories` are all that are at hand. */
export function timelineFacts(
  systemId: string,
  history: string | null,
  histories: Readonly<Record<string, string>>,
): TimelineFacts {
  const entries = parseHistory(history ?? '');
  const last = entries.at(-1);
  return {
    ancestors: entries.map(({ timeline, lsn }) => ({
      lineage: lineageOf(systemId, timeline),
      position: positionOf(lsn),
    })),
    fork: last?.lsn ?? null,
    parent: last?.timeline ?? null,
    histories,
  };
}

/** What is known once a segment was cut to its end. */
export interface CutEnd {
  /** For the next segment; undefined when that cannot do without what is lost. */
  readonly carry: Carry | undefined;
  /**
   * False when what the segment begins with ends a record whose beginning is unknown: that stretch is kept as a
   * file, and the log shows a gap there, since a commit may be in it.
   */
  readonly joined: boolean;
}

export interface SegmentInput {
  readonly name: ArchiveName;
  readonly header: SegmentHeader;
  readonly timeline: TimelineFacts;
  /** Of the segment before; `bytes` empty when no record is open there. Undefined: unknown. */
  readonly carry: Carry | undefined;
  /** Something is stored before it that it does not continue. */
  readonly disjoint?: boolean;
}

/**
 * Whether the first page of a segment continues what the one before ended with. A server that lost power can have
 * written other WAL behind a segment that it had archived.
 */
export function fits(header: SegmentHeader, carry: Carry, firstPage: Uint8Array): boolean {
  if (carry.bytes === null) return header.continued > 0;
  if (carry.from + BigInt(carry.bytes.length) !== header.lsn) return false;
  const scanner = new WalScanner(carry.from, {
    segmentSize: header.segmentSize,
    systemId: BigInt(header.systemId),
  });
  try {
    scanner.push(carry.bytes);
    scanner.push(firstPage);
    return true;
  } catch (error) {
    if (isHoldfastError(error, 'postgres.wal-invalid')) return false;
    throw error;
  }
}

/**
 * Feed with `push` from the segment's first byte on, take the stretches, then `end`. Copies nothing: stretches are
 * views of what was pushed and of the carry. Throws `postgres.wal-invalid`.
 */
export class SegmentCutter {
  readonly #input: SegmentInput;
  readonly #scanner: WalScanner;
  readonly #joined: boolean;
  #ready: LogStretch[] = [];
  #timeline: number;
  /** What is not in a stretch yet. */
  #from: bigint;
  #pending: Uint8Array[] = [];
  #commits: Commit[] = [];
  #marks: Mark[] = [];

  constructor(input: SegmentInput) {
    this.#input = input;
    const { header, carry, timeline, name } = input;
    const { segmentSize, systemId } = header;
    const bytes = carry?.bytes ?? null;
    // The carry was found not to fit: what the segment begins with does not continue what is stored before it.
    this.#joined = carry !== undefined || (header.continued === 0 && input.disjoint !== true);
    const start = bytes === null ? header.lsn : header.lsn - BigInt(bytes.length);
    this.#scanner = new WalScanner(start, { segmentSize, systemId: BigInt(systemId) });
    this.#from = start;
    const { fork, parent } = timeline;
    this.#timeline = fork !== null && parent !== null && header.lsn < fork ? parent : name.timeline;
    if (bytes !== null && bytes.length > 0) {
      this.#scanner.push(bytes);
      this.#pending.push(bytes);
    }
  }

  push(piece: Uint8Array): void {
    let rest = piece;
    while (rest.length > 0) {
      const room = this.#untilBoundary();
      const taken = rest.subarray(0, room);
      this.#scanner.push(taken);
      this.#pending.push(taken);
      this.#commits.push(...this.#scanner.takeCommits());
      this.#marks.push(...this.#scanner.takeRestorePoints());
      this.#scanner.takeTablespaces();
      rest = rest.subarray(taken.length);
      this.#atBoundary();
    }
  }

  /** Bytes up to the next place where something must be cut. */
  #untilBoundary(): number {
    const at = this.#scanner.position;
    const { header, timeline } = this.#input;
    const places = [header.lsn + BigInt(header.segmentSize), this.#from + BigInt(partBytes), this.#headEnd];
    if (timeline.fork !== null) places.push(timeline.fork);
    return Math.min(...places.filter((place) => place > at).map((place) => Number(place - at)));
  }

  #atBoundary(): void {
    const at = this.#scanner.position;
    const { timeline, name } = this.#input;
    if (!this.#joined && at === this.#headEnd) this.#keepHead(at);
    if (timeline.fork === at && this.#timeline !== name.timeline) {
      this.#cut(at);
      this.#timeline = name.timeline;
      return;
    }
    if (at - this.#from < BigInt(partBytes)) return;
    const { complete } = this.#scanner;
    this.#cut(complete > this.#from ? complete : at);
  }

  /** Where the record ends whose beginning is unknown. */
  get #headEnd(): bigint {
    const { header } = this.#input;
    let left = header.continued;
    let at = 0;
    if (left === 0) return header.lsn + BigInt(longHeaderBytes);
    for (; left > 0 && at < header.segmentSize; at += walPageSize) {
      const head = at === 0 ? longHeaderBytes : shortHeaderBytes;
      const room = walPageSize - head;
      if (left <= room) return header.lsn + BigInt(at + head + left);
      left -= room;
    }
    return header.lsn + BigInt(Math.min(at, header.segmentSize));
  }

  #keepHead(end: bigint): void {
    const { name, header } = this.#input;
    const position = positionOf(header.lsn);
    const lineage = lineageOf(header.systemId, this.#timeline);
    const data = this.#pending;
    this.#pending = [];
    this.#from = end;
    this.#ready.push({
      lineage,
      ancestors: this.#ancestors(),
      from: position,
      to: position,
      data,
      commits: [],
      meta: { file: name.name, offset: 0 },
    });
  }

  #ancestors(): readonly Ancestor[] {
    const { timeline, name } = this.#input;
    return this.#timeline === name.timeline ? timeline.ancestors : timeline.ancestors.slice(0, -1);
  }

  /** Ends the open stretch at `to`. */
  #cut(to: bigint): void {
    if (to <= this.#from) return;
    const { header, timeline } = this.#input;
    const { complete } = this.#scanner;
    const lineage = lineageOf(header.systemId, this.#timeline);
    const stretch: LogStretch = {
      lineage,
      ancestors: this.#ancestors(),
      from: positionOf(this.#from),
      to: positionOf(to),
      data: this.#bytes(Number(to - this.#from)),
      commits: this.#commits,
      ...(this.#marks.length === 0 ? {} : { marks: this.#marks }),
      meta: {
        recordEnd: positionOf(complete < to ? complete : to),
        ...(Object.keys(timeline.histories).length === 0 ? {} : { histories: timeline.histories }),
      },
    };
    this.#from = to;
    this.#commits = [];
    this.#marks = [];
    this.#ready.push(stretch);
  }

  #bytes(length: number): Uint8Array[] {
    const taken: Uint8Array[] = [];
    let left = length;
    while (left > 0) {
      const first = this.#pending[0]!;
      if (first.length <= left) {
        taken.push(first);
        this.#pending.shift();
        left -= first.length;
      } else {
        taken.push(first.subarray(0, left));
        this.#pending[0] = first.subarray(left);
        left = 0;
      }
    }
    return taken;
  }

  /** Stretches that are closed, since the last call. */
  take(): LogStretch[] {
    const ready = this.#ready;
    this.#ready = [];
    return ready;
  }

  /** Closes the last stretches; `take` them afterwards. */
  end(): CutEnd {
    const { complete, position } = this.#scanner;
    this.#cut(complete);
    const rest = this.#pending.reduce((sum, piece) => sum + piece.length, 0);
    const carry = this.#carryOf(complete, rest);
    this.#cut(position);
    return { carry, joined: this.#joined };
  }

  #carryOf(complete: bigint, rest: number): Carry | undefined {
    const { position } = this.#scanner;
    if (complete === position) return { from: position, bytes: new Uint8Array(0) };
    const whole = position - BigInt(rest) === complete;
    if (whole && rest <= carryLimit) return { from: complete, bytes: Buffer.concat(this.#pending) };
    const kind = whole ? resourceManager(this.#pending, complete) : undefined;
    return kind === undefined || kind <= rmXact ? undefined : { from: complete, bytes: null };
  }
}

/** The resource manager of the record that begins the pieces at `start`; its header may go over a page's end. */
function resourceManager(pieces: readonly Uint8Array[], start: bigint): number | undefined {
  const inPage = Number(start % BigInt(walPageSize));
  const room = walPageSize - inPage;
  const offset = room > 17 ? 17 : 17 + shortHeaderBytes;
  let at = 0;
  for (const piece of pieces) {
    if (offset < at + piece.length) return piece[offset - at];
    at += piece.length;
  }
  return undefined;
}

/** A piece of a file that is kept as it is, at one place in the log (docs/03-format.md §7). */
export function fileStretch(
  name: ArchiveName,
  options: {
    readonly systemId: string;
    readonly position: bigint;
    readonly timeline: TimelineFacts;
    readonly offset: number;
    readonly content: Uint8Array;
  },
): LogStretch {
  const { systemId, position, timeline, offset, content } = options;
  const place = positionOf(position);
  return {
    lineage: lineageOf(systemId, name.timeline),
    ancestors: timeline.ancestors,
    from: place,
    to: place,
    data: [content],
    commits: [],
    meta: {
      file: name.name,
      offset,
      ...(Object.keys(timeline.histories).length === 0 ? {} : { histories: timeline.histories }),
    },
  };
}
