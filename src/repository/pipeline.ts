/**
 * The frame encoder: plaintext buffers go in, stored packs come out. Workers compress, encrypt and hash; this
 * side stores packs and keeps the books. Memory is bounded by the buffers that exist: FRAME_BYTES for each
 * plaintext buffer, PACK_BYTES for each pack.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { ObjectStore } from '../storage/store.ts';
import type { FrameWorkerData, FromFrameWorker, ToFrameWorker } from './frame-worker.ts';
import { type PackBinding, packName, type SealContext } from './pack.ts';
import { FRAME_BYTES } from './section.ts';
import { workerUrl } from './worker-url.ts';

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
}

/** Where a frame went: `pack` counts this run's packs and is looked up in `packs()` after `flush`. */
export interface FramePlace {
  readonly pack: number;
  readonly frame: number;
}

interface Lane {
  readonly worker: Worker;
  /** This worker's own pack numbers to the pipeline's. */
  readonly packs: Map<number, number>;
  queued: number;
}

export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #lanes: Lane[];
  readonly #packs: (PackBinding | undefined)[] = [];
  readonly #places: (FramePlace | undefined)[] = [];
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
    this.#lanes = Array.from({ length: count }, () => this.#startWorker());
    this.#abort = () => this.#fail(options.signal.reason);
    if (options.signal.aborted) this.#abort();
    options.signal.addEventListener('abort', this.#abort, { once: true });
  }

  #startWorker(): Lane {
    const { context, level } = this.#options;
    const workerData: FrameWorkerData = { context, level, packBuffers: PACK_BUFFERS_PER_WORKER };
    const worker = new Worker(workerUrl('frame-worker'), { workerData });
    const lane: Lane = { worker, packs: new Map(), queued: 0 };
    worker.on('message', (message: FromFrameWorker) => this.#receive(lane, message));
    worker.on('error', (error) => this.#fail(error));
    return lane;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(this.#failure);
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
      let pack = lane.packs.get(message.pack);
      if (pack === undefined) {
        pack = this.#packs.push(undefined) - 1;
        lane.packs.set(message.pack, pack);
      }
      this.#places[message.ticket] = { pack, frame: message.frame };
      this.#free.push(message.buffer);
      lane.queued--;
      this.#outstanding--;
    } else if (message.type === 'packed') {
      void this.#storePack(lane, message.pack, message.binding, message.buffer);
    } else {
      this.#finishing--;
    }
    this.#wake();
  }

  async #storePack(lane: Lane, number: number, binding: PackBinding, buffer: Uint8Array): Promise<void> {
    this.#storing++;
    try {
      const { store, signal, onStored } = this.#options;
      const content = buffer.subarray(0, binding.bytes);
      const sha256 = Buffer.from(binding.digest, 'hex');
      const { storedAt } = await store.put(packName(binding.digest), [content], { sha256, signal });
      this.#packs[lane.packs.get(number) as number] = binding;
      lane.packs.delete(number);
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
    if (this.#failure !== undefined) throw this.#failure;
    const lane = this.#lanes.reduce((least, other) => (other.queued < least.queued ? other : least));
    const ticket = this.#places.push(undefined) - 1;
    lane.queued++;
    this.#outstanding++;
    const message: ToFrameWorker = { type: 'frame', ticket, buffer, length };
    lane.worker.postMessage(message, [buffer.buffer as ArrayBuffer]);
    return ticket;
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
    const place = this.#places[ticket];
    if (place === undefined) throw new Error(`frame ${ticket} has no place yet`);
    return place;
  }

  /** All packs of this run. Only after `flush`. */
  packs(): PackBinding[] {
    return this.#packs.map((pack, i) => {
      if (pack === undefined) throw new Error(`pack ${i} is not stored yet`);
      return pack;
    });
  }

  /** Ends the workers. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.signal.removeEventListener('abort', this.#abort);
    await Promise.all(this.#lanes.map(({ worker }) => worker.terminate()));
  }
}
