import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import { TarReader } from './tar.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-tar-'));
afterAll(() => rmSync(folder, { recursive: true }));

const long = `${'a'.repeat(90)}/${'b'.repeat(150)}`;
const contents = new Map<string, Buffer>([
  ['empty', Buffer.alloc(0)],
  ['one', Buffer.from('x')],
  ['block', Buffer.alloc(512, 7)],
  ['base/5/1234', Buffer.alloc(100_000, 3)],
  [long, Buffer.from('long names')],
  ['ünïcode', Buffer.from('ü')],
]);
for (const [path, bytes] of contents) {
  mkdirSync(join(folder, 'in', path, '..'), { recursive: true });
  writeFileSync(join(folder, 'in', path), bytes);
}
mkdirSync(join(folder, 'in', 'hollow'), { mode: 0o700 });
symlinkSync('base/5', join(folder, 'in', 'link'));

/** GNU tar is the independent writer. */
function archive(format: string): Buffer {
  return execFileSync(
    'tar',
    ['-C', join(folder, 'in'), `--format=${format}`, '-cf', '-', ...readdirSync(join(folder, 'in'))],
    {
      maxBuffer: 1e8,
    },
  );
}

async function read(tar: Uint8Array, cuts: readonly number[], slow = false) {
  const found = new Map<string, { type: string; mode: number; target: string; content: Buffer }>();
  let pieces: Buffer[] = [];
  const reader = new TarReader({
    begin: () => {
      pieces = [];
    },
    data: (bytes) => {
      if (!slow) return void pieces.push(Buffer.from(bytes));
      return Promise.resolve().then(() => void pieces.push(Buffer.from(bytes)));
    },
    end: (entry) => {
      const content = Buffer.concat(pieces);
      expect(content.length).toBe(entry.size);
      found.set(entry.path, { type: entry.type, mode: entry.mode, target: entry.target, content });
      pieces = [];
    },
  });
  for (let at = 0, turn = 0; at < tar.length; turn += 1) {
    const size = cuts[turn % cuts.length]!;
    await reader.push(tar.subarray(at, at + size));
    at += size;
  }
  reader.finish();
  return found;
}

describe('the tar reader', () => {
  it.each(['gnu', 'pax'])('reads what GNU tar wrote as %s, however it is cut', async (format) => {
    const tar = archive(format);
    for (const cuts of [[1 << 30], [512], [1000, 17, 4096], [513]]) {
      const found = await read(tar, cuts, cuts.length === 3);
      for (const [path, bytes] of contents) {
        expect(found.get(path)?.content.equals(bytes), path).toBe(true);
        expect(found.get(path)?.type).toBe('file');
      }
      expect(found.get('hollow')).toMatchObject({ type: 'directory', mode: 0o700 });
      expect(found.get('link')).toMatchObject({ type: 'symlink', target: 'base/5' });
    }
  });

  it('reads sizes beyond 8 GiB in base 256', () => {
    const header = Buffer.alloc(512);
    header.write('huge', 0);
    header.write('0000600\0', 100);
    header[124] = 0x80;
    header.writeBigUInt64BE(0x3_0000_0000n, 128);
    header.write('00000000000\0', 136);
    header.write('0', 156);
    header.fill(0x20, 148, 156);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    const sizes: number[] = [];
    const reader = new TarReader({
      begin: (entry) => sizes.push(entry.size),
      data: () => undefined,
      end: () => undefined,
    });
    reader.push(header);
    expect(sizes).toEqual([0x3_0000_0000]);
    expect(() => reader.finish()).toThrowError(/in the middle of huge/);
  });

  it('refuses garbage with an error of its own', async () => {
    const tar = archive('gnu');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(tar.length - 1), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 6,
        }),
        async (flips) => {
          const copy = Buffer.from(tar);
          for (const [at, mask] of flips) copy[at - (at % 512) + (at % 160)]! ^= mask;
          try {
            await read(copy, [4096]);
          } catch (error) {
            if (!isHoldfastError(error, 'postgres.protocol')) throw error;
          }
        },
      ),
      { numRuns: 50 },
    );
    await expect(read(tar.subarray(0, 2000), [700])).rejects.toThrowError(/ended early/);
  });
});
