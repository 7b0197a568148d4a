/**
 * A worker of the pipeline: compresses, encrypts and packs the frames that it is handed, one pack after the
 * other. Buffers are transferred both ways, never copied between threads.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { PACK_BYTES, type PackBinding, PackWriter, type SealContext } from './pack.ts';

export interface FrameWorkerData {
  readonly context: SealContext;
  readonly level: number;
  /** Pack buffers that this worker may have, filling and being stored together. */
  readonly packBuffers: number;
}

export type ToFrameWorker =
  | { readonly type: 'frame'; readonly ticket: number; readonly buffer: Uint8Array; readonly length: number }
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
  | {
      readonly type: 'packed';
      readonly pack: number;
      readonly binding: PackBinding;
      readonly buffer: Uint8Array;
    }
  | { readonly type: 'finished' };

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker only');
const { context, level, packBuffers } = workerData as FrameWorkerData;

const free: Uint8Array[] = [];
const waiting: ToFrameWorker[] = [];
let allocated = 0;
let open: { readonly number: number; readonly buffer: Uint8Array; readonly writer: PackWriter } | undefined;
let packs = 0;

function takeBuffer(): Uint8Array | undefined {
  const buffer = free.pop();
  if (buffer !== undefined || allocated === packBuffers) return buffer;
  allocated++;
  return new Uint8Array(PACK_BYTES);
}

function send(message: FromFrameWorker, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

function closePack(): void {
  if (open === undefined) return;
  const { number, buffer, writer } = open;
  open = undefined;
  send({ type: 'packed', pack: number, binding: writer.finish(), buffer }, [buffer.buffer as ArrayBuffer]);
}

/** False when it has to wait for a pack buffer. */
function handle(message: ToFrameWorker): boolean {
  if (message.type === 'finish') {
    closePack();
    send({ type: 'finished' });
    return true;
  }
  if (message.type === 'frame') {
    if (open === undefined) {
      const buffer = takeBuffer();
      if (buffer === undefined) return false;
      open = { number: packs++, buffer, writer: new PackWriter(context, level, buffer) };
    }
    const frame = open.writer.frame(message.buffer.subarray(0, message.length));
    const pack = open.number;
    const { ticket, buffer } = message;
    send({ type: 'framed', ticket, pack, frame, buffer }, [buffer.buffer as ArrayBuffer]);
    if (!open.writer.hasRoom) closePack();
  }
  return true;
}

port.on('message', (message: ToFrameWorker) => {
  if (message.type === 'stored') free.push(message.buffer);
  else waiting.push(message);
  while (waiting[0] !== undefined && handle(waiting[0])) waiting.shift();
});
