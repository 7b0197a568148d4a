/**
 * Received log on its way into parts: bytes are copied once, out of the socket's buffer into blocks that are
 * used again, and a part is closed where a record ends, so that each commit lies in one part whole.
 */
import { createHash } from 'node:crypto';
import type { Commit, Mark } from '../../repository/contract.ts';
import { type WalScanner, walPageSize } from './wal-records.ts';

const blockSize = 1024 * 1024;

interface Block {
  readonly bytes: Buffer;
  /** Bytes in use: `[start, end)`. */
  start: number;
  end: number;
}

/** A closed stretch of log. `release` when its bytes are needed no more. */
export interface WalPart {
  readonly from: bigint;
  readonly to: bigint;
  /** End of the last complete record: `to`, but for a part that was cut in the middle of one. */
  readonly recordEnd: bigint;
  readonly data: readonly Uint8Array[];
  readonly commits: readonly Commit[];
  /** Restore points. */
  readonly marks: readonly Mark[];
  /** SHA-256 of the bytes `[lastPageFrom, to)`, where `lastPageFrom` is the start of `to`'s page (or of the stream). */
  readonly lastPage: string;
  readonly lastPageFrom: bigint;
  /** When its first byte came, by the monotonic clock. */
  readonly receivedAt: number;
  release(): void;
}

export interface WalPartsOptions {
  /** First byte of the stretch. */
  readonly start: bigint;
  /** Bytes `[pageStart, start)` that came before and are not part of it; empty when they are not known. */
  readonly before: Uint8Array;
  /** Stands at `start`. */
  readonly scanner: WalScanner;
  /** Bytes in all blocks together. */
  readonly memoryLimit: number;
  readonly now: () => number;
}

/** Collects one stream's bytes. */
export class WalParts {
  readonly #options: WalPartsOptions;
  readonly #scanner: WalScanner;
  #from: bigint;
  #blocks: Block[] = [];
  #commits: Commit[] = [];
  #marks: Mark[] = [];
  #receivedAt = 0;
  readonly #free: Buffer[] = [];
  #allocated = 0;
  /** The current page up to `#from`. */
  #page: Buffer;
  #waiting: (() => void)[] = [];

  constructor(options: WalPartsOptions) {
    this.#options = options;
    this.#scanner = options.scanner;
    this.#from = options.start;
    this.#page = Buffer.from(options.before);
  }

  /** End of what was received. */
  get position(): bigint {
    return this.#scanner.position;
  }

  /** End of the last complete record that was received. */
  get complete(): bigint {
    return this.#scanner.complete;
  }

  /** Start of the open part. */
  get from(): bigint {
    return this.#from;
  }

  /** Bytes in the open part. */
  get size(): number {
    return Number(this.position - this.#from);
  }

  /** When the first byte of the open part came; undefined when it is empty. */
  get receivedAt(): number | undefined {
    return this.#blocks.length === 0 ? undefined : this.#receivedAt;
  }

  /** True when nothing more fits until a part is released. */
  get full(): boolean {
    const last = this.#blocks.at(-1);
    const room = last === undefined ? 0 : blockSize - last.end;
    return room === 0 && this.#free.length === 0 && this.#allocated >= this.#options.memoryLimit;
  }

  /** Resolves when something fits again. */
  room(): Promise<void> {
    if (!this.full) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Takes as many of the next bytes as fit and returns how many those were. Throws `postgres.wal-invalid`. */
  take(data: Uint8Array): number {
    if (this.#blocks.length === 0) this.#receivedAt = this.#options.now();
    let at = 0;
    while (at < data.length && !this.full) {
      const block = this.#writable();
      const piece = data.subarray(at, at + blockSize - block.end);
      block.bytes.set(piece, block.end);
      this.#scanner.push(piece);
      block.end += piece.length;
      at += piece.length;
    }
    const commits = this.#scanner.takeCommits();
    if (commits.length > 0) this.#commits.push(...commits);
    const marks = this.#scanner.takeRestorePoints();
    if (marks.length > 0) this.#marks.push(...marks);
    this.#scanner.takeTablespaces();
    return at;
  }

  /** Commits in the open part. */
  get commits(): number {
    return this.#commits.length;
  }

  /**
   * Closes the open part at the last complete record; with `anywhere` where the bytes end (a record larger than
   * a part; a timeline's end). Undefined when it would be empty.
   */
  close(anywhere = false): WalPart | undefined {
    const to = anywhere ? this.position : this.complete;
    if (to <= this.#from) return undefined;
    const recordEnd = this.complete;
    const blocks = this.#split(Number(to - this.#from));
    const data = blocks.map(({ bytes, start, end }) => bytes.subarray(start, end));
    const from = this.#from;
    const receivedAt = this.#receivedAt;
    const { lastPage, lastPageFrom } = this.#lastPage(from, to, data);
    const [commits, marks] = [this.#commits, this.#marks];
    this.#commits = [];
    this.#marks = [];
    this.#from = to;
    this.#receivedAt = this.#options.now();
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      for (const block of blocks) this.#free.push(block.bytes);
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const wake of waiting) wake();
    };
    return { from, to, recordEnd, data, commits, marks, lastPage, lastPageFrom, receivedAt, release };
  }

  /** Takes the first `length` bytes out; the rest moves to the front of the next part. */
  #split(length: number): Block[] {
    let left = length;
    let index = 0;
    while (index < this.#blocks.length && left >= this.#blocks[index]!.end - this.#blocks[index]!.start) {
      left -= this.#blocks[index]!.end - this.#blocks[index]!.start;
      index += 1;
    }
    const taken = this.#blocks.slice(0, index);
    const rest = this.#blocks.slice(index);
    const cut = rest[0];
    if (cut !== undefined && left > 0) {
      const bytes = this.#free.pop() ?? this.#allocate();
      const end = cut.bytes.copy(bytes, 0, cut.start + left, cut.end);
      rest[0] = { bytes, start: 0, end };
      taken.push({ ...cut, end: cut.start + left });
    }
    this.#blocks = rest;
    return taken;
  }

  #lastPage(from: bigint, to: bigint, data: readonly Buffer[]): { lastPage: string; lastPageFrom: bigint } {
    const pageStart = (to - 1n) & ~BigInt(walPageSize - 1);
    const known = from - BigInt(this.#page.length);
    const lastPageFrom = pageStart > known ? pageStart : known;
    const wanted = Number(to - lastPageFrom);
    const pieces: Buffer[] = [];
    let have = 0;
    for (let i = data.length - 1; i >= 0 && have < wanted; i -= 1) {
      const piece = data[i]!.subarray(Math.max(0, data[i]!.length - (wanted - have)));
      pieces.unshift(piece);
      have += piece.length;
    }
    if (have < wanted) pieces.unshift(this.#page.subarray(this.#page.length - (wanted - have)));
    const page = Buffer.concat(pieces);
    // The next part may end in the same page; when this one ends with it, nothing of it is needed.
    this.#page = page.length === walPageSize ? Buffer.alloc(0) : page;
    return { lastPage: createHash('sha256').update(page).digest('hex'), lastPageFrom };
  }

  #writable(): Block {
    const last = this.#blocks.at(-1);
    if (last !== undefined && last.end < blockSize) return last;
    const block = { bytes: this.#free.pop() ?? this.#allocate(), start: 0, end: 0 };
    this.#blocks.push(block);
    return block;
  }

  #allocate(): Buffer {
    this.#allocated += blockSize;
    // Shared, so that the worker that seals a part sees it without a copy (measured: a sixth of the main thread's
    // and the worker's time went into the copy and its collection).
    return Buffer.from(new SharedArrayBuffer(blockSize));
  }
}
