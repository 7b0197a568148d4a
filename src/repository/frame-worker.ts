/**
 * A worker of the pipeline: compresses, encrypts and packs the frames that it is handed, one pack after the
 * other, or runs a source's own reader, which finds and appends the blocks itself. Buffers are transferred
 * both ways, never copied between threads.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { type ErrorCode, isHoldfastError } from '../core/errors.ts';
import type { PackBinding, SealContext } from './pack.ts';
import { PackFiller, type Place } from './pack-filler.ts';

/** One job of a source's reader. Copied to the worker; buffers in it may be transferred. */
export interface ReaderJob {
  /** Plaintext that it appends at most; the worker starts it when there is room for that. */
  readonly bytes: number;
}

/** What a reader's job gives back; copied from the worker. */
export type ReaderAnswer = object;

/** Where a reader puts its blocks. */
export interface BlockReceiver {
  /** Bytes that fit into the frame being filled; FRAME_BYTES when it is empty. */
  readonly room: number;
  /** Takes adjacent blocks of one file, at most FRAME_BYTES, into one frame: a new one when `room` is too small. */
  append(blocks: Uint8Array): Place;
}

/** What the module of a reader exports. Runs in a worker: reads synchronously, keeps nothing of other jobs' data. */
export interface ReaderModule {
  /** `seed`: 8 secret bytes, what block hashes are seeded with. */
  createReader(
    data: unknown,
    seed: Uint8Array,
  ): { read(job: ReaderJob, receiver: BlockReceiver): ReaderAnswer };
}

/** Why a job failed: an error in a form that crosses threads. */
export interface WorkerFailure {
  readonly code: ErrorCode | undefined;
  readonly message: string;
}

export interface FrameWorkerData {
  readonly context: SealContext;
  readonly level: number;
  /** Pack buffers that this worker may have, filling and being stored together. */
  readonly packBuffers: number;
  /** This worker among `count`: tokens of packs are unique over all. */
  readonly index: number;
  readonly count: number;
  readonly reader: { readonly module: string; readonly data: unknown; readonly seed: Uint8Array } | null;
}

export type ToFrameWorker =
  | { readonly type: 'frame'; readonly ticket: number; readonly buffer: Uint8Array; readonly length: number }
  | { readonly type: 'job'; readonly ticket: number; readonly job: ReaderJob }
  | { readonly type: 'finish' }
  /** A pack was stored: its buffer comes back. */
  | { readonly type: 'stored'; readonly buffer: Uint8Array };

export type FromFrameWorker =
  | {
      readonly type: 'framed';
      readonly ticket: number;
      readonly pack: number;
      readonly frame: number;
      readonly buffer: Uint8Array;
    }
  | { readonly type: 'read'; readonly ticket: number; readonly answer: ReaderAnswer }
  | { readonly type: 'unread'; readonly ticket: number; readonly failure: WorkerFailure }
  | {
      readonly type: 'packed';
      readonly token: number;
      readonly binding: PackBinding;
      readonly buffer: Uint8Array;
    }
  | { readonly type: 'finished' };

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker only');
const { context, level, packBuffers, index, count, reader: readerData } = workerData as FrameWorkerData;

const filler = new PackFiller({
  context,
  level,
  buffers: packBuffers,
  first: index,
  step: count,
  onFilled: ({ token, binding, buffer }) =>
    send({ type: 'packed', token, binding, buffer }, [buffer.buffer as ArrayBuffer]),
});
const waiting: ToFrameWorker[] = [];

function send(message: FromFrameWorker, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

async function loadReader() {
  if (readerData === null) return undefined;
  const module = (await import(readerData.module)) as ReaderModule;
  return module.createReader(readerData.data, readerData.seed);
}

function read(ticket: number, job: ReaderJob): void {
  try {
    if (reader === undefined) throw new Error('this pipeline has no reader');
    send({ type: 'read', ticket, answer: reader.read(job, filler) });
  } catch (error) {
    const code = isHoldfastError(error) ? error.code : undefined;
    const message = error instanceof Error ? error.message : String(error);
    send({ type: 'unread', ticket, failure: { code, message } });
  }
}

/** False when it has to wait for a pack buffer. */
function handle(message: ToFrameWorker): boolean {
  if (message.type === 'finish') {
    filler.finish();
    send({ type: 'finished' });
  } else if (message.type === 'frame') {
    if (!filler.hasRoomFor(message.length)) return false;
    const { ticket, buffer, length } = message;
    const { pack, frame } = filler.frame(buffer.subarray(0, length));
    send({ type: 'framed', ticket, pack, frame, buffer }, [buffer.buffer as ArrayBuffer]);
  } else if (message.type === 'job') {
    if (!filler.hasRoomFor(message.job.bytes)) return false;
    read(message.ticket, message.job);
  }
  return true;
}

const reader = await loadReader();

port.on('message', (message: ToFrameWorker) => {
  if (message.type === 'stored') filler.giveBack(message.buffer);
  else waiting.push(message);
  while (waiting[0] !== undefined && handle(waiting[0])) waiting.shift();
});
