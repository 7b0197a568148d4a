import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import { MessageReader } from './message-reader.ts';

type Seen = { type: string; body: string };

function encode(messages: readonly Seen[]): Buffer {
  return Buffer.concat(
    messages.map(({ type, body }) => {
      const bytes = Buffer.from(body, 'hex');
      const head = Buffer.alloc(5);
      head.write(type, 'latin1');
      head.writeInt32BE(bytes.length + 4, 1);
      return Buffer.concat([head, bytes]);
    }),
  );
}

/** Reads it all; the handler waits now and then, and each chunk is wiped as soon as it was handled. */
async function read(
  chunks: readonly Buffer[],
  waits: (call: number) => boolean,
  limit = 1 << 20,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  let copied: Buffer[] = [];
  let calls = 0;
  let busy = false;
  const handle = (act: () => void): void | Promise<void> => {
    expect(busy).toBe(false);
    if (!waits(calls++)) return act();
    busy = true;
    return new Promise((resolve) =>
      setImmediate(() => {
        act();
        busy = false;
        resolve();
      }),
    );
  };
  const reader = new MessageReader(
    {
      message: (type, body) =>
        handle(() => seen.push({ type: String.fromCharCode(type), body: body.toString('hex') })),
      copy: (piece, first, last) =>
        handle(() => {
          expect(first).toBe(copied.length === 0);
          copied.push(Buffer.from(piece));
          if (!last) return;
          seen.push({ type: 'd', body: Buffer.concat(copied).toString('hex') });
          copied = [];
        }),
    },
    limit,
  );
  for (const chunk of chunks) {
    const buffer = Buffer.from(chunk);
    await reader.read(buffer);
    buffer.fill(0xee);
  }
  return seen;
}

const message = fc.record({
  type: fc.constantFrom('d', 'D', 'T', 'C', 'Z', 'd'),
  body: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('hex')),
});

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  for (let offset = 0, i = 0; offset < bytes.length; i++) {
    const size = sizes[i % sizes.length]!;
    chunks.push(bytes.subarray(offset, offset + size));
    offset += size;
  }
  return chunks;
}

describe('the message reader', () => {
  it('gives the same messages however the stream is cut and however slow the handler is', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(message, { maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 7 }),
        async (messages, sizes, every) => {
          const seen = await read(cut(encode(messages), sizes), (call) => call % every === 0);
          expect(seen).toEqual(messages);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('ends rubbish with an error of its own or takes it, and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 50 }), { maxLength: 10 }),
        async (chunks) => {
          const result = await read(
            chunks.map((chunk) => Buffer.from(chunk)),
            () => false,
            1000,
          ).catch((error: unknown) => error);
          expect(Array.isArray(result) || isHoldfastError(result, 'postgres.protocol')).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('refuses absurd and negative lengths', async () => {
    for (const length of [0x7fffffff, 1 << 21, 3, 0, -1, -0x80000000]) {
      const head = Buffer.alloc(5);
      head.write('D', 'latin1');
      head.writeInt32BE(length, 1);
      await expect(
        read([head], () => false),
        String(length),
      ).rejects.toThrow(/PostgreSQL protocol/);
    }
  });

  it('takes memory for what arrived, not for what was announced', async () => {
    const reader = new MessageReader({ message: () => undefined, copy: () => undefined }, 1 << 30);
    const head = Buffer.from([0x44, 0x30, 0, 0, 0, 1, 2, 3]);
    const before = process.memoryUsage().arrayBuffers;
    reader.read(head);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20);
  });

  it('passes a copy of any length on without keeping it', async () => {
    let bytes = 0;
    const count = (piece: Buffer) => {
      bytes += piece.length;
    };
    const reader = new MessageReader({ message: () => undefined, copy: count }, 10);
    reader.read(Buffer.from([0x64, 0x7f, 0xff, 0xff, 0xff]));
    const chunk = Buffer.alloc(1 << 20);
    for (let i = 0; i < 100; i++) expect(reader.read(chunk)).toBeUndefined();
    expect(bytes).toBe(100 * 1024 * 1024);
  });

  it('stops for good with the error of its handler', async () => {
    const chunks = [encode([{ type: 'Z', body: '49' }])];
    const boom = new Error('boom');
    const throwing = new MessageReader({ message: () => Promise.reject(boom), copy: () => undefined }, 100);
    await expect(throwing.read(chunks[0]!)).rejects.toBe(boom);
  });
});
