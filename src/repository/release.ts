/**
 * Giving buffers back at once. V8 collects buffers outside its heap when some 64 MiB of them have gathered, in
 * each thread by itself: threads that drop a few a frame hold more garbage than data (measured: 340 MiB for an
 * extraction that needs 190). Moving a buffer to one of no length frees its memory now.
 */
import { Buffer } from 'node:buffer';

/**
 * Frees the memory under `bytes`, which nobody may use any more: neither them nor any other view of their
 * buffer. Small buffers are left to the collector: they may lie in Node's shared pool.
 */
export function release(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Math.max(Buffer.poolSize, 64 << 10)) {
    buffer.transfer(0);
  }
}
