/**
 * The log of a restore as PostgreSQL asks for it: whole segment files, put together from the segments of the
 * snapshot and from log parts, which are stretches of bytes cut anywhere.
 *
 * A segment appears under its name when it is whole, by a rename. Bytes after the end of the log are zeros,
 * which PostgreSQL takes for the end. Where a stretch is covered twice, both must agree.
 */
import { type FileHandle, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { syncFolder, writeDurably } from './durable-file.ts';
import { formatLsn, segmentName, segmentStart } from './position.ts';
import type { ServerUser } from './server-user.ts';

export interface WalSpoolOptions {
  /** Where segments appear. Exists. */
  readonly folder: string;
  /** Where the snapshot's own segments are. Exists; the spool takes them from there. */
  readonly snapshotFolder: string;
  /** Bytes. */
  readonly segmentSize: number;
  /** Timeline and stretch of the snapshot's own log. */
  readonly timeline: number;
  readonly startLsn: bigint;
  readonly stopLsn: bigint;
  readonly owner: ServerUser | undefined;
  /** Flush each segment before it appears. */
  readonly sync: boolean;
  /** Awaited before a segment appears: keeps the spool small. */
  readonly gate?: (name: string) => Promise<void>;
  /** Awaited with each segment's file before it appears; its log ends at `end`. A rejection ends the filling. */
  readonly inspect?: (path: string, timeline: number, start: bigint, end: bigint) => Promise<void>;
}

interface OpenSegment {
  readonly timeline: number;
  readonly start: bigint;
  readonly name: string;
  readonly file: FileHandle;
}

/** From `start` (a segment's first byte) on, the log is in files of `timeline`. */
interface Branch {
  readonly timeline: number;
  readonly start: bigint;
}

/** Used by one task at a time: `begin`, any number of `switchTo` and `append`, then `finish`; `close` always. */
export class WalSpool {
  readonly #options: WalSpoolOptions;
  readonly #size: bigint;
  /** All before this place, from the snapshot's start on, is there. */
  #end: bigint;
  #timeline: number;
  #branches: Branch[];
  #open: OpenSegment | undefined;

  constructor(options: WalSpoolOptions) {
    this.#options = options;
    this.#size = BigInt(options.segmentSize);
    this.#end = options.stopLsn;
    this.#timeline = options.timeline;
    this.#branches = [
      { timeline: options.timeline, start: segmentStart(options.startLsn, options.segmentSize) },
    ];
  }

  /** The log is there up to here. */
  get end(): bigint {
    return this.#end;
  }

  get timeline(): number {
    return this.#timeline;
  }

  /** Takes over the snapshot's segments. Throws `recovery.wal-missing` when one is not there. */
  async begin(): Promise<void> {
    const { startLsn, stopLsn, segmentSize, snapshotFolder } = this.#options;
    for (let at = segmentStart(startLsn, segmentSize); at < stopLsn; at += this.#size) {
      const name = segmentName(this.#timeline, at, segmentSize);
      const from = join(snapshotFolder, name);
      if (at + this.#size <= stopLsn) {
        await this.#publish(from, name, at);
        continue;
      }
      await this.#take(from, name);
      this.#open = await this.#segment(this.#timeline, at, 'r+');
      // What follows the snapshot's end may be there or not: only the log parts say.
      await this.#open.file.truncate(Number(stopLsn - at));
      await this.#open.file.truncate(segmentSize);
    }
  }

  /**
   * The log goes on in another timeline, which left the present one at `lsn`. The segment of that place belongs
   * to both: the new timeline's file begins with a copy. Nothing happens when it is the present one.
   */
  async switchTo(timeline: number, lsn: bigint): Promise<void> {
    if (timeline === this.#timeline) return;
    if (lsn > this.#end) throw missing(this.#end, lsn, this.#timeline);
    const { segmentSize } = this.#options;
    const start = segmentStart(lsn, segmentSize);
    const shared = lsn > start ? await this.#read(start, Number(lsn - start)) : undefined;
    // What the old timeline wrote after it was left is nobody's log any more.
    this.#end = lsn;
    await this.#close();
    this.#timeline = timeline;
    this.#branches.push({ timeline, start });
    if (shared === undefined) return;
    this.#open = await this.#segment(timeline, start, 'w+');
    await this.#open.file.truncate(segmentSize);
    await this.#open.file.write(shared, 0, shared.length, 0);
  }

  /**
   * The bytes at `lsn` of the present timeline. Throws `recovery.wal-missing` when there is a gap before them,
   * `recovery.wal-disagrees` when they differ from what is there already.
   */
  async append(lsn: bigint, bytes: Uint8Array): Promise<void> {
    if (lsn > this.#end) throw missing(this.#end, lsn, this.#timeline);
    let rest = bytes;
    if (lsn < this.#end) {
      const known = Math.min(rest.length, Number(this.#end - lsn));
      await this.#compare(lsn, rest.subarray(0, known));
      rest = rest.subarray(known);
    }
    while (rest.length > 0) {
      this.#open ??= await this.#create();
      const offset = Number(this.#end - this.#open.start);
      const room = Math.min(rest.length, this.#options.segmentSize - offset);
      await writeAll(this.#open.file, rest.subarray(0, room), offset);
      this.#end += BigInt(room);
      rest = rest.subarray(room);
      if (offset + room === this.#options.segmentSize) await this.#close();
    }
  }

  /** Puts the last segment, filled up with zeros, in its place. */
  async finish(): Promise<void> {
    await this.#close();
    if (this.#options.sync) await syncFolder(this.#options.folder);
  }

  /** Lets go of files; for failures. Idempotent. */
  async close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.file.close();
  }

  async #create(): Promise<OpenSegment> {
    const start = segmentStart(this.#end, this.#options.segmentSize);
    const segment = await this.#segment(this.#timeline, start, 'w+');
    await segment.file.truncate(this.#options.segmentSize);
    return segment;
  }

  async #segment(timeline: number, start: bigint, flags: 'r+' | 'w+'): Promise<OpenSegment> {
    const { segmentSize, owner } = this.#options;
    const name = segmentName(timeline, start, segmentSize);
    const file = await open(this.#partial(name), flags, 0o600);
    if (owner !== undefined) await file.chown(owner.uid, owner.gid);
    return { timeline, start, name, file };
  }

  #partial(name: string): string {
    return join(this.#options.folder, `${name}.partial`);
  }

  async #close(): Promise<void> {
    const open = this.#open;
    if (open === undefined) return;
    if (this.#options.sync) await open.file.sync();
    await open.file.close();
    this.#open = undefined;
    await this.#publish(this.#partial(open.name), open.name, open.start);
  }

  async #publish(from: string, name: string, start: bigint): Promise<void> {
    await this.#options.gate?.(name);
    if (this.#options.inspect !== undefined && start < this.#end) {
      await this.#found(name, () => this.#options.inspect!(from, this.#timeline, start, this.#end));
    }
    await this.#move(from, join(this.#options.folder, name), name);
  }

  async #take(from: string, name: string): Promise<void> {
    await this.#move(from, this.#partial(name), name);
  }

  async #move(from: string, to: string, name: string): Promise<void> {
    await this.#found(name, () => rename(from, to));
  }

  async #found(name: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw error;
      throw new HoldfastError(
        'recovery.wal-missing',
        `The snapshot does not hold the segment ${name} of the log, which makes it consistent.`,
        { cause: error, details: { segment: name } },
      );
    }
  }

  /** Bytes that are there already, from wherever they are now; undefined when replay has consumed them. */
  async #read(lsn: bigint, length: number): Promise<Uint8Array | undefined> {
    const result = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const at = lsn + BigInt(done);
      const start = segmentStart(at, this.#options.segmentSize);
      const offset = Number(at - start);
      const room = Math.min(length - done, this.#options.segmentSize - offset);
      if (!(await this.#readSegment(start, offset, result.subarray(done, done + room)))) return undefined;
      done += room;
    }
    return result;
  }

  async #readSegment(start: bigint, offset: number, into: Uint8Array): Promise<boolean> {
    const branch = this.#branches.findLast((candidate) => candidate.start <= start);
    if (branch === undefined) return false;
    if (this.#open?.start === start && this.#open.timeline === branch.timeline) {
      await this.#open.file.read(into, 0, into.length, offset);
      return true;
    }
    const name = segmentName(branch.timeline, start, this.#options.segmentSize);
    let file: FileHandle;
    try {
      file = await open(join(this.#options.folder, name), 'r');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return false;
      throw error;
    }
    try {
      await file.read(into, 0, into.length, offset);
      return true;
    } finally {
      await file.close();
    }
  }

  async #compare(lsn: bigint, bytes: Uint8Array): Promise<void> {
    // Before the snapshot's start there is nothing to compare with, and nothing that replay needs.
    const skip = lsn < this.#options.startLsn ? Number(this.#options.startLsn - lsn) : 0;
    if (skip >= bytes.length) return;
    const from = lsn + BigInt(skip);
    const given = bytes.subarray(skip);
    const there = await this.#read(from, given.length);
    if (there === undefined || Buffer.compare(there, given) === 0) return;
    const first = from + BigInt(given.findIndex((byte, i) => byte !== there[i]));
    throw new HoldfastError(
      'recovery.wal-disagrees',
      `The log has two different contents at ${formatLsn(first)} on timeline ${this.#timeline}.`,
      { details: { lsn: formatLsn(first), timeline: this.#timeline } },
    );
  }
}

/** Writes the history files that PostgreSQL may ask for. Throws `recovery.wal-disagrees` for two of one name. */
export async function spoolHistories(
  folder: string,
  sources: readonly Readonly<Record<string, string>>[],
  owner: ServerUser | undefined,
): Promise<ReadonlySet<string>> {
  const all = new Map<string, string>();
  for (const histories of sources) {
    for (const [name, text] of Object.entries(histories)) {
      if (all.has(name) && all.get(name) !== text) {
        throw new HoldfastError(
          'recovery.wal-disagrees',
          `Two different histories of timeline ${Number.parseInt(name, 16)} are in the repository (${name}).`,
          { details: { name } },
        );
      }
      all.set(name, text);
    }
  }
  for (const [name, text] of all) await writeDurably(join(folder, name), text, owner);
  return new Set(all.keys());
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

function missing(from: bigint, to: bigint, timeline: number): HoldfastError {
  return new HoldfastError(
    'recovery.wal-missing',
    `The log from ${formatLsn(from)} to ${formatLsn(to)} on timeline ${timeline} is missing.`,
    { details: { from: formatLsn(from), to: formatLsn(to), timeline } },
  );
}
