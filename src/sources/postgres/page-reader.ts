/**
 * The reader of the local snapshot, run in the pipeline's workers: reads stretches of files, compares each block
 * with the hash known of it, hands over what differs, and checks pages. Synchronous: a worker has nothing else
 * to do, and a read from the page cache takes less than a promise.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { systemErrorCode } from '../../core/errors.ts';
import type { BlockReceiver, ReaderAnswer, ReaderJob } from '../../repository/pipeline.ts';
import { type BadPage, PageCheck } from './page-checksum.ts';
import { PAGE_BYTES, PageKernel, WINDOW_BYTES } from './page-kernel.ts';

/** Part of a file. */
export interface Stretch {
  /** Absolute. */
  readonly path: string;
  /** A multiple of PAGE_BYTES. */
  readonly offset: number;
  /** What is read at most: growth is the business of the log. */
  readonly length: number;
  /** 8 bytes for each block that the snapshot before had here; null to hand over everything. */
  readonly known: Uint8Array | null;
  /** Bytes that it had here. */
  readonly knownBytes: number;
  /** Number of the first block in its relation, or null when these are no pages with checksums. */
  readonly firstBlock: number | null;
}

export interface PageJob extends ReaderJob {
  readonly stretches: readonly Stretch[];
}

export interface StretchRead {
  /** Bytes read; less than asked for when the file is shorter. Null: there is no such file any more. */
  readonly length: number | null;
  /** 8 bytes a block. */
  readonly hashes: Uint8Array;
  /** As `BlockPiece.runs`. */
  readonly runs: Int32Array;
  readonly bad: readonly BadPage[];
}

export interface PageAnswer {
  /** One for each stretch of the job. */
  readonly read: readonly StretchRead[];
}

const vanished: StretchRead = { length: null, hashes: new Uint8Array(), runs: new Int32Array(), bad: [] };

class PageReader {
  readonly #kernel: PageKernel;
  readonly #check: PageCheck;

  constructor(seed: Uint8Array) {
    this.#kernel = new PageKernel(seed);
    this.#check = new PageCheck(this.#kernel);
  }

  read(job: ReaderJob, receiver: BlockReceiver): ReaderAnswer {
    const { stretches } = job as PageJob;
    return { read: stretches.map((stretch) => this.#stretch(stretch, receiver)) } satisfies PageAnswer;
  }

  #stretch(stretch: Stretch, receiver: BlockReceiver): StretchRead {
    let fd: number;
    try {
      fd = openSync(stretch.path, 'r');
    } catch (error) {
      // Dropped since it was listed; whoever replays the log drops it too.
      if (systemErrorCode(error) === 'ENOENT') return vanished;
      throw error;
    }
    try {
      return this.#blocks(fd, stretch, receiver);
    } finally {
      closeSync(fd);
    }
  }

  #blocks(fd: number, stretch: Stretch, receiver: BlockReceiver): StretchRead {
    const { offset, length, firstBlock } = stretch;
    const { window, hashWords } = this.#kernel;
    const hashes = new Uint32Array(2 * Math.ceil(length / PAGE_BYTES));
    const runs: number[] = [];
    const bad: BadPage[] = [];
    let done = 0;
    while (done < length) {
      const wanted = Math.min(WINDOW_BYTES, length - done);
      const bytes = fill(fd, window, wanted, offset + done);
      const blocks = Math.ceil(bytes / PAGE_BYTES);
      // The hash of a short block counts the rest as zeros.
      window.fill(0, bytes, blocks * PAGE_BYTES);
      this.#kernel.hash(blocks);
      const first = done / PAGE_BYTES;
      hashes.set(hashWords.subarray(0, 2 * blocks), 2 * first);
      const suspects =
        firstBlock === null ? [] : this.#check.suspects(firstBlock + first, Math.floor(bytes / PAGE_BYTES));
      this.#handOver(stretch, first, bytes, receiver, runs);
      // Only now: looking again uses the window.
      if (suspects.length > 0)
        bad.push(...this.#check.confirm(fd, suspects, (firstBlock ?? 0) - offset / PAGE_BYTES));
      done += bytes;
      if (bytes < wanted) break;
    }
    const used = new Uint8Array(hashes.buffer, 0, 8 * Math.ceil(done / PAGE_BYTES));
    return { length: done, hashes: used, runs: Int32Array.from(runs), bad };
  }

  /** Appends the window's blocks that differ: `first` is the number of its first block in the stretch. */
  #handOver(stretch: Stretch, first: number, bytes: number, receiver: BlockReceiver, runs: number[]): void {
    const same = this.#comparison(stretch, first, bytes);
    const blocks = Math.ceil(bytes / PAGE_BYTES);
    for (let block = 0; block < blocks; block++) {
      if (same(block)) continue;
      let end = block + 1;
      while (end < blocks && !same(end)) end++;
      while (block < end) {
        const count = Math.min(end - block, Math.max(1, Math.floor(receiver.room / PAGE_BYTES)));
        const piece = this.#kernel.window.subarray(
          block * PAGE_BYTES,
          Math.min((block + count) * PAGE_BYTES, bytes),
        );
        const { pack, frame, offset } = receiver.append(piece);
        addRun(runs, first + block, count, pack, frame, offset);
        block += count;
      }
    }
  }

  #comparison(stretch: Stretch, first: number, bytes: number): (block: number) => boolean {
    const { known, knownBytes } = stretch;
    if (known === null) return () => false;
    const before = new Uint32Array(known.buffer, known.byteOffset, known.byteLength / 4);
    const { hashWords } = this.#kernel;
    return (block) => {
      const at = (first + block) * PAGE_BYTES;
      const length = Math.min(PAGE_BYTES, bytes - block * PAGE_BYTES);
      if (Math.min(PAGE_BYTES, knownBytes - at) !== length) return false;
      const word = 2 * (first + block);
      return before[word] === hashWords[2 * block] && before[word + 1] === hashWords[2 * block + 1];
    };
  }
}

function fill(fd: number, window: Uint8Array, wanted: number, position: number): number {
  let bytes = 0;
  while (bytes < wanted) {
    const more = readSync(fd, window, bytes, wanted - bytes, position + bytes);
    if (more === 0) break;
    bytes += more;
  }
  return bytes;
}

/** Extends the last run when blocks and place go on, else starts one. */
function addRun(
  runs: number[],
  block: number,
  count: number,
  pack: number,
  frame: number,
  offset: number,
): void {
  const last = runs.length - 5;
  const blocks = runs[last + 1] ?? 0;
  const continues =
    last >= 0 &&
    (runs[last] as number) + blocks === block &&
    runs[last + 2] === pack &&
    runs[last + 3] === frame &&
    (runs[last + 4] as number) + blocks * PAGE_BYTES === offset;
  if (continues) runs[last + 1] = blocks + count;
  else runs.push(block, count, pack, frame, offset);
}

/** See `ReaderModule`. */
export function createReader(
  _data: unknown,
  seed: Uint8Array,
): { read(job: ReaderJob, receiver: BlockReceiver): ReaderAnswer } {
  return new PageReader(seed);
}
