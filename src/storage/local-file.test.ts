import fc from 'fast-check';
import { expect, it } from 'vitest';
import { writeAll } from './local-file.ts';

/** A file of a system that writes less than it is given, as POSIX allows. */
function shortWriter(limit: number) {
  const file = Buffer.alloc(64 << 10);
  let end = 0;
  const most = { buffers: 0 };
  const writev = async <T extends readonly NodeJS.ArrayBufferView[]>(buffers: T, position?: number) => {
    most.buffers = Math.max(most.buffers, buffers.length);
    const bytes = Buffer.concat(buffers as unknown as Uint8Array[]).subarray(0, limit);
    bytes.copy(file, position ?? 0);
    end = Math.max(end, (position ?? 0) + bytes.length);
    return { bytesWritten: bytes.length, buffers };
  };
  return { writev, most, written: () => file.subarray(0, end) };
}

it('continues after short writes, at any boundary', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 40 }),
      fc.integer({ min: 1, max: 50 }),
      async (content, limit) => {
        const file = shortWriter(limit);
        await writeAll(file, content, undefined);
        expect(file.written().equals(Buffer.concat(content))).toBe(true);
      },
    ),
    { numRuns: 200 },
  );
});

it('never hands over more buffers than the system takes', async () => {
  const content = Array.from({ length: 5000 }, (_, i) => Uint8Array.of(i & 255));
  const file = shortWriter(Number.POSITIVE_INFINITY);
  await writeAll(file, content, undefined);
  expect(file.most.buffers).toBe(1024);
  expect(file.written().equals(Buffer.concat(content))).toBe(true);
});
