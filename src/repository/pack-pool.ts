/** A pool of extraction workers: packs in, answers out; bounded by the packs that it holds in memory. */
import { Worker } from 'node:worker_threads';
import { HoldfastError } from '../core/errors.ts';
import { damaged } from './codec.ts';
import type { ExtractAnswer, ExtractJob, ExtractWorkerData } from './extract-worker.ts';
import { workerUrl } from './worker-url.ts';

const WORKERS = 2;

interface Slot {
  readonly worker: Worker;
  busy: boolean;
  /** Why its worker is no more. A dead worker never answers: whoever gets the slot must fail, not wait. */
  dead?: Error;
}

export class PackPool {
  readonly #slots: Slot[];
  #waiting: ((slot: Slot) => void)[] = [];

  constructor(data: ExtractWorkerData) {
    this.#slots = Array.from({ length: WORKERS }, () => startSlot(data));
  }

  /** How many jobs may be in hand at once: one a worker, and one being fetched meanwhile. */
  get width(): number {
    return this.#slots.length + 1;
  }

  async #acquire(): Promise<Slot> {
    const idle = this.#slots.find((slot) => !slot.busy);
    if (idle !== undefined) {
      idle.busy = true;
      return idle;
    }
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  #release(slot: Slot): void {
    const next = this.#waiting.shift();
    if (next === undefined) slot.busy = false;
    else next(slot);
  }

  /** Runs one job; resolves with the plaintext bytes that it handled. The job's bytes are transferred away. */
  async run(job: ExtractJob): Promise<number> {
    const slot = await this.#acquire();
    try {
      if (slot.dead !== undefined) throw ended(slot.dead);
      const answer = await ask(slot.worker, job);
      if (answer.ok) return answer.bytes;
      throw toError(answer, job);
    } finally {
      this.#release(slot);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#slots.map(({ worker }) => worker.terminate()));
  }
}

function startSlot(data: ExtractWorkerData): Slot {
  const slot: Slot = { worker: new Worker(workerUrl('extract-worker'), { workerData: data }), busy: false };
  slot.worker.on('error', (error: Error) => {
    slot.dead ??= error;
  });
  slot.worker.on('exit', () => {
    slot.dead ??= new Error('it ended');
  });
  return slot;
}

function ended(cause: Error): HoldfastError {
  return new HoldfastError(
    'system.internal',
    `A worker that restores packs ended by itself: ${cause.message}. What was written is incomplete.`,
    { cause },
  );
}

async function ask(worker: Worker, job: ExtractJob): Promise<ExtractAnswer> {
  return await new Promise<ExtractAnswer>((resolve, reject) => {
    const settle = () => {
      worker.off('message', done);
      worker.off('error', failed);
      worker.off('exit', gone);
    };
    const done = (answer: ExtractAnswer) => {
      settle();
      resolve(answer);
    };
    const failed = (error: Error) => {
      settle();
      reject(ended(error));
    };
    const gone = () => failed(new Error('it ended'));
    worker.once('message', done);
    worker.once('error', failed);
    worker.once('exit', gone);
    const whole = job.bytes.byteOffset === 0 && job.bytes.byteLength === job.bytes.buffer.byteLength;
    worker.postMessage(job, whole ? [job.bytes.buffer as ArrayBuffer] : []);
  });
}

function toError(answer: Extract<ExtractAnswer, { ok: false }>, job: ExtractJob): Error {
  if (answer.code === 'repository.damaged') {
    return new HoldfastError('repository.damaged', answer.message, {
      details: { object: answer.object ?? job.pack.digest },
    });
  }
  if (answer.systemCode === 'ENOSPC' || answer.systemCode === 'EDQUOT') {
    return new HoldfastError('system.disk-full', `The disk is full: ${answer.message}.`);
  }
  if (answer.systemCode !== undefined) {
    return new HoldfastError('system.file-failed', `A file could not be written: ${answer.message}.`);
  }
  return damaged(`packs/${job.pack.digest.slice(0, 2)}/${job.pack.digest}`, answer.message);
}
