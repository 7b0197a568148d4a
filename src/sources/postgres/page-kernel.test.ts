import { randomBytes } from 'node:crypto';
import { createXXHash3 } from 'hash-wasm';
import { describe, expect, it } from 'vitest';
import { PAGE_BYTES, PageKernel, WINDOW_BYTES } from './page-kernel.ts';

/** pg_checksum_block, word by word, as PostgreSQL's C reads. */
function plainSum(page: Uint8Array, bases: readonly number[]): number {
  const words = new Uint32Array(Uint8Array.from(page).buffer);
  words[2] = (words[2] as number) & 0xffff0000;
  const sums = Uint32Array.from(bases);
  const step = (j: number, value: number) => {
    const mixed = ((sums[j] as number) ^ value) >>> 0;
    sums[j] = (Math.imul(mixed, 16_777_619) ^ (mixed >>> 17)) >>> 0;
  };
  for (let i = 0; i < words.length; i++) step(i % 32, words[i] as number);
  for (let i = 0; i < 64; i++) step(i % 32, 0);
  return sums.reduce((sum, value) => sum ^ value, 0) >>> 0;
}

describe('the page kernel', () => {
  it('hashes as XXH3 with the seed', async () => {
    for (const seed of [Buffer.alloc(8), randomBytes(8), Buffer.alloc(8, 0xff)]) {
      const kernel = new PageKernel(seed);
      kernel.window.set(randomBytes(WINDOW_BYTES));
      kernel.window.fill(0, 3 * PAGE_BYTES, 4 * PAGE_BYTES);
      kernel.hash(WINDOW_BYTES / PAGE_BYTES);
      const oracle = await createXXHash3(seed.readUInt32LE(0), seed.readUInt32LE(4));
      for (let i = 0; i < WINDOW_BYTES / PAGE_BYTES; i++) {
        const block = kernel.window.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
        const [low = 0, high = 0] = kernel.hashWords.subarray(2 * i, 2 * i + 2);
        const ours = ((BigInt(high) << 32n) | BigInt(low)).toString(16).padStart(16, '0');
        expect(ours, `block ${i}`).toBe(oracle.init().update(block).digest('hex'));
      }
    }
  });

  it('tells apart blocks that differ in one bit, wherever it is', () => {
    const kernel = new PageKernel(randomBytes(8));
    const block = randomBytes(PAGE_BYTES);
    const seen = new Set<string>();
    for (let bit = 0; bit < PAGE_BYTES * 8; bit += 61) {
      kernel.window.set(block);
      kernel.window[bit >> 3] = (kernel.window[bit >> 3] as number) ^ (1 << (bit & 7));
      kernel.hash(1);
      seen.add(kernel.hashWords.subarray(0, 2).join());
    }
    expect(seen.size).toBe(Math.ceil((PAGE_BYTES * 8) / 61));
  });

  it('sums pages as PostgreSQL does, and leaves them as they were', () => {
    const kernel = new PageKernel(randomBytes(8));
    const content = randomBytes(5 * PAGE_BYTES);
    kernel.window.set(content);
    kernel.sums(5);
    const bases = [...new Uint32Array(kernel.window.buffer, 256, 32)];
    for (let i = 0; i < 5; i++) {
      const page = content.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      expect(kernel.sumWords[i]).toBe(plainSum(page, bases));
    }
    expect(Buffer.from(kernel.window.subarray(0, content.length)).equals(content)).toBe(true);
  });
});
