/**
 * The frame encoder: plaintext buffers go in, stored packs come out. Workers compress, encrypt and hash; this
 * side stores packs and keeps the books. Memory is bounded by the buffers that exist: FRAME_BYTES for each
 * plaintext buffer, PACK_BYTES for each pack.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { HoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import type {
  FrameWorkerData,
  FromFrameWorker,
  ReaderAnswer,
  ReaderJob,
  ToFrameWorker,
  WorkerFailure,
} from './frame-worker.ts';
import { type PackBinding, packName, type SealContext } from './pack.ts';
import { FRAME_BYTES } from './section.ts';
import { workerUrl } from './worker-url.ts';

/** What a source's reader module is written against. */
export type { BlockReceiver, ReaderAnswer, ReaderJob, ReaderModule } from './frame-worker.ts';

/** Two fill both cores of a small host; more only pay where there are idle cores, at 34 MiB each. */
const WORKERS_MOST = 4;
/** Plaintext buffers a worker: one in work, one queued, one being filled. */
const BUFFERS_PER_WORKER = 3;
const PACK_BUFFERS_PER_WORKER = 2;

export interface PipelineOptions {
  readonly store: ObjectStore;
  readonly context: SealContext;
  readonly level: number;
  readonly workers?: number;
  readonly signal: AbortSignal;
  /** Called for each pack when it is durable in the store. */
  readonly onStored?: (pack: PackBinding, storedAt: number) => void;
  /** A module with a reader (`ReaderModule`), and what it is made from: for `read`. */
  readonly reader?: { readonly module: URL; readonly data: unknown; readonly seed: Uint8Array };
}

/** Where a frame went: `pack` is the token by which `pack()` knows it after `flush`. */
export interface FramePlace {
  readonly pack: number;
  readonly frame: number;
}

interface Lane {
  readonly worker: Worker;
  queued: number;
}

interface OpenJob {
  readonly resolve: (answer: ReaderAnswer) => void;
  readonly reject: (error: unknown) => void;
}

export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #lanes: Lane[];
  readonly #packs = new Map<number, PackBinding>();
  /** By ticket, [pack token, frame]: flat, since a terabyte has a million of them. */
  readonly #places: number[] = [];
  readonly #jobs = new Map<number, OpenJob>();
  #tickets = 0;
  readonly #free: Uint8Array[] = [];
  readonly #abort: () => void;
  #outstanding = 0;
  #finishing = 0;
  #storing = 0;
  #waiters: { resolve: () => void; reject: (error: unknown) => void; ready: () => boolean }[] = [];
  #failure: unknown;
  #closed = false;

  constructor(options: PipelineOptions) {
    this.#options = options;
    const count = options.workers ?? Math.min(WORKERS_MOST, Math.max(2, availableParallelism()));
    this.#lanes = Array.from({ length: count }, (_, index) => this.#startWorker(index, count));
    this.#abort = () => this.#fail(options.signal.reason);
    if (options.signal.aborted) this.#abort();
    options.signal.addEventListener('abort', this.#abort, { once: true });
  }

  #startWorker(index: number, count: number): Lane {
    const { context, level, reader } = this.#options;
    const workerData: FrameWorkerData = {
      context,
      level,
      packBuffers: PACK_BUFFERS_PER_WORKER,
      index,
      count,
      reader: reader === undefined ? null : { ...reader, module: reader.module.href },
    };
    const worker = new Worker(workerUrl('frame-worker'), { workerData });
    const lane: Lane = { worker, queued: 0 };
    worker.on('message', (message: FromFrameWorker) => this.#receive(lane, message));
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', () => this.#fail(new Error('a worker of the pipeline ended')));
    return lane;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(this.#failure);
    for (const job of this.#jobs.values()) job.reject(this.#failure);
    this.#jobs.clear();
  }

  #wake(): void {
    const ready = this.#waiters.filter((waiter) => waiter.ready());
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const waiter of ready) waiter.resolve();
  }

  async #until(ready: () => boolean): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (ready()) return;
    await new Promise<void>((resolve, reject) => this.#waiters.push({ resolve, reject, ready }));
  }

  #receive(lane: Lane, message: FromFrameWorker): void {
    if (message.type === 'framed') {
      this.#places[2 * message.ticket] = message.pack;
      this.#places[2 * message.ticket + 1] = message.frame;
      this.#free.push(message.buffer);
      this.#settled(lane);
    } else if (message.type === 'read' || message.type === 'unread') {
      const job = this.#jobs.get(message.ticket);
      this.#jobs.delete(message.ticket);
      this.#settled(lane);
      if (message.type === 'read') job?.resolve(message.answer);
      else job?.reject(toError(message.failure));
    } else if (message.type === 'packed') {
      void this.#storePack(lane, message.token, message.binding, message.buffer);
    } else {
      this.#finishing--;
    }
    this.#wake();
  }

  #settled(lane: Lane): void {
    lane.queued--;
    this.#outstanding--;
  }

  async #storePack(lane: Lane, token: number, binding: PackBinding, buffer: Uint8Array): Promise<void> {
    this.#storing++;
    try {
      const { store, signal, onStored } = this.#options;
      const content = buffer.subarray(0, binding.bytes);
      const sha256 = Buffer.from(binding.digest, 'hex');
      const { storedAt } = await store.put(packName(binding.digest), [content], { sha256, signal });
      this.#packs.set(token, binding);
      onStored?.(binding, storedAt);
      const message: ToFrameWorker = { type: 'stored', buffer };
      lane.worker.postMessage(message, [buffer.buffer as ArrayBuffer]);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#storing--;
      this.#wake();
    }
  }

  get #limit(): number {
    return this.#lanes.length * BUFFERS_PER_WORKER;
  }

  /** A buffer of FRAME_BYTES, at once: one more than the limit rather than none. Follow with `ready`. */
  take(): Uint8Array {
    const buffer = this.#free.pop();
    return buffer ?? new Uint8Array(FRAME_BYTES);
  }

  /** Undefined when more may be submitted, else a promise to await first (back pressure). */
  ready(): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const roomy = () => this.#outstanding < this.#limit;
    return roomy() ? undefined : this.#until(roomy);
  }

  /** Hands over a buffer from `take`; returns the ticket by which `place` knows the frame after `flush`. */
  submit(buffer: Uint8Array, length: number): number {
    const ticket = this.#tickets++;
    this.#post({ type: 'frame', ticket, buffer, length }, [buffer.buffer as ArrayBuffer]);
    return ticket;
  }

  /** How many reader jobs keep every worker busy. */
  get width(): number {
    return this.#lanes.length * 2;
  }

  /** Runs one job of the reader module in the least busy worker. The caller bounds how many are under way. */
  async read(job: ReaderJob, transfer: readonly ArrayBuffer[] = []): Promise<ReaderAnswer> {
    const ticket = this.#tickets++;
    return await new Promise<ReaderAnswer>((resolve, reject) => {
      this.#post({ type: 'job', ticket, job }, transfer);
      this.#jobs.set(ticket, { resolve, reject });
    });
  }

  #post(message: ToFrameWorker, transfer: readonly ArrayBuffer[]): void {
    if (this.#failure !== undefined) throw this.#failure;
    const lane = this.#lanes.reduce((least, other) => (other.queued < least.queued ? other : least));
    lane.queued++;
    this.#outstanding++;
    lane.worker.postMessage(message, [...transfer]);
  }

  /** Closes the open packs; resolves when everything submitted is durable in the store. More may follow. */
  async flush(): Promise<void> {
    await this.#until(() => this.#outstanding === 0);
    this.#finishing += this.#lanes.length;
    for (const lane of this.#lanes) lane.worker.postMessage({ type: 'finish' } satisfies ToFrameWorker);
    await this.#until(() => this.#finishing === 0 && this.#storing === 0);
  }

  /** Where the frame of `ticket` is. Only after `flush`. */
  place(ticket: number): FramePlace {
    const pack = this.#places[2 * ticket];
    const frame = this.#places[2 * ticket + 1];
    if (pack === undefined || frame === undefined) throw new Error(`frame ${ticket} has no place yet`);
    return { pack, frame };
  }

  /** A pack of this run by its token. Only after `flush`. */
  pack(token: number): PackBinding {
    const pack = this.#packs.get(token);
    if (pack === undefined) throw new Error(`pack ${token} is not stored yet`);
    return pack;
  }

  /** All packs of this run. Only after `flush`. */
  packs(): PackBinding[] {
    return [...this.#packs.values()];
  }

  /** Ends the workers. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.signal.removeEventListener('abort', this.#abort);
    await Promise.all(this.#lanes.map(({ worker }) => worker.terminate()));
  }
}

function toError(failure: WorkerFailure): Error {
  if (failure.code !== undefined) return new HoldfastError(failure.code, failure.message);
  return new HoldfastError('system.file-failed', `A file could not be read: ${failure.message}.`);
}
