/**
 * Drives the workers through a data directory: cuts files into stretches and stretches into jobs, keeps a few
 * jobs under way, and puts the answers together to files in their order.
 */
import type { Clock } from '../../core/clock.ts';
import type { Step } from '../../core/progress.ts';
import type { BlockPiece, BlockSink, KnownFile, SnapshotSink } from '../../repository/contract.ts';
import type { BadPage } from './page-checksum.ts';
import type { PageAnswer, PageJob, Stretch, StretchRead } from './page-reader.ts';
import type { DataWalk, FoundFile } from './walk.ts';

const blockBytes = 8192;
/** A job must leave the worker room for a frame in the pack; less would be more messages for nothing. */
const jobBytes = 4 << 20;
/** Small files share jobs. */
const jobStretches = 200;
/** How many entries are looked at without a pause for the log's stream and the screen. */
const entriesAtOnce = 500;

/** A page with a wrong checksum, and where. */
export interface DamagedPage extends BadPage {
  /** Of its file's entry. */
  readonly path: string;
}

export interface FileCopyOptions {
  readonly sink: SnapshotSink;
  readonly blocks: BlockSink;
  readonly step: Step;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Blocks of a relation in each of its files. */
  readonly segmentBlocks: number;
  /** Whether pages carry checksums. */
  readonly checksums: boolean;
  /** What may be read a second; null for no limit. */
  readonly bytesPerSecond: number | null;
}

/** A file whose stretches are under way. */
interface OpenFile {
  readonly file: FoundFile;
  readonly answers: (StretchRead | undefined)[];
  readonly offsets: number[];
  outstanding: number;
  /** All its stretches are in jobs. */
  complete: boolean;
}

interface Batch {
  readonly stretches: Stretch[];
  readonly of: { readonly open: OpenFile; readonly index: number }[];
  bytes: number;
}

export class FileCopy {
  readonly #options: FileCopyOptions;
  /** In order; done ones leave at the front. */
  #files: OpenFile[] = [];
  #batch: Batch = { stretches: [], of: [], bytes: 0 };
  #running = 0;
  #failed: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;
  #read = 0;
  #started = 0;
  readonly bad: DamagedPage[] = [];

  constructor(options: FileCopyOptions) {
    this.#options = options;
  }

  /** Resolves when every file is with the sink. */
  async run(walk: DataWalk): Promise<void> {
    const { sink, step, clock } = this.#options;
    step.total(await this.#measure(walk));
    this.#started = clock.monotonic();
    let seen = 0;
    for (const found of walk.entries()) {
      if (++seen % entriesAtOnce === 0) await this.#pause();
      if (found.path === null || found.size === 0) sink.entry(found.meta);
      else await this.#file(found);
    }
    await this.#dispatch();
    await this.#until(() => this.#running === 0);
    this.#finish();
  }

  /** For the display. The walk is repeated: holding a million names would cost more than looking again. */
  async #measure(walk: DataWalk): Promise<number> {
    let bytes = 0;
    let seen = 0;
    for (const found of walk.measured()) {
      bytes += found;
      if (++seen % entriesAtOnce === 0) await this.#pause();
    }
    return bytes;
  }

  async #pause(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#options.signal.throwIfAborted();
  }

  async #file(file: FoundFile): Promise<void> {
    const known = await this.#options.blocks.known(file.meta.path);
    const open: OpenFile = { file, answers: [], offsets: [], outstanding: 0, complete: false };
    this.#files.push(open);
    for (let offset = 0; offset < file.size; ) {
      const room = jobBytes - this.#batch.bytes;
      const rest = file.size - offset;
      const length = rest <= room ? rest : room - (room % blockBytes);
      if (length > 0) {
        this.#add(open, offset, length, known);
        offset += length;
      }
      if (length === 0 || this.#batch.bytes >= jobBytes || this.#batch.stretches.length >= jobStretches)
        await this.#dispatch();
    }
    open.complete = true;
    this.#finish();
  }

  #add(open: OpenFile, offset: number, length: number, known: KnownFile | undefined): void {
    const { checksums, segmentBlocks } = this.#options;
    const { path, segment } = open.file;
    const block = offset / blockBytes;
    const stretch: Stretch = {
      path,
      offset,
      length,
      // Copied: a view would take the whole file's hashes along to the worker.
      known:
        known === undefined
          ? null
          : known.hashes.slice(8 * block, 8 * (block + Math.ceil(length / blockBytes))),
      knownBytes: known === undefined ? 0 : Math.max(0, known.size - offset),
      firstBlock: checksums && segment !== null ? segment * segmentBlocks + block : null,
    };
    this.#batch.stretches.push(stretch);
    this.#batch.of.push({ open, index: open.offsets.length });
    this.#batch.bytes += length;
    open.offsets.push(offset);
    open.answers.push(undefined);
    open.outstanding++;
  }

  async #dispatch(): Promise<void> {
    const batch = this.#batch;
    if (batch.stretches.length === 0) return;
    this.#batch = { stretches: [], of: [], bytes: 0 };
    await this.#until(() => this.#running < this.#options.blocks.width);
    await this.#holdRate();
    this.#running++;
    this.#read += batch.bytes;
    const job: PageJob = { bytes: batch.bytes, stretches: batch.stretches };
    this.#options.blocks.read<PageAnswer>(job).then(
      (answer) => this.#receive(batch, answer),
      (error: unknown) => {
        this.#failed ??= { error };
        this.#wake();
      },
    );
  }

  async #holdRate(): Promise<void> {
    const { bytesPerSecond, clock, signal } = this.#options;
    if (bytesPerSecond === null) return;
    const due = this.#started + (this.#read / bytesPerSecond) * 1000;
    const wait = due - clock.monotonic();
    if (wait > 0) await clock.sleep(wait, signal);
  }

  #receive(batch: Batch, { read }: PageAnswer): void {
    this.#running--;
    for (const [i, { open, index }] of batch.of.entries()) {
      open.answers[index] = read[i];
      open.outstanding--;
      for (const page of read[i]?.bad ?? []) this.bad.push({ ...page, path: open.file.meta.path });
    }
    this.#options.step.advance(batch.bytes);
    this.#finish();
    this.#wake();
  }

  /** Hands over what is complete, in order. */
  #finish(): void {
    let done = 0;
    for (const open of this.#files) {
      if (!open.complete || open.outstanding > 0) break;
      this.#handOver(open);
      done++;
    }
    if (done > 0) this.#files = this.#files.slice(done);
  }

  #handOver({ file, answers, offsets }: OpenFile): void {
    const pieces: BlockPiece[] = [];
    let size = 0;
    for (const [i, answer] of answers.entries()) {
      // Gone, or cut off since it was listed: the log does the same to the copy.
      if (answer?.length === undefined || answer.length === null) break;
      const { length, hashes, runs } = answer;
      const offset = offsets[i] as number;
      if (offset !== size) break;
      if (length > 0) pieces.push({ offset, length, hashes, runs });
      size += length;
    }
    if (answers[0]?.length === null) return;
    if (size === 0) this.#options.sink.entry(file.meta);
    else this.#options.blocks.file(file.meta, size, pieces);
  }

  async #until(ready: () => boolean): Promise<void> {
    for (;;) {
      if (this.#failed !== undefined) throw this.#failed.error;
      this.#options.signal.throwIfAborted();
      if (ready()) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
