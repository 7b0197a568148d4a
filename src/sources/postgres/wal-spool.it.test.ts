import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { segmentName } from './position.ts';
import { WalSpool } from './wal-spool.ts';

const size = 2 ** 20;
const base = BigInt(size) * 7n;
const log = Buffer.alloc(3 * size + 5000, 0);
for (let i = 0; i < log.length; i += 4) log.writeUInt32LE(((i * 2_654_435_761) % 2 ** 32) >>> 0, i);

describe('the spool of a restore', () => {
  let root: string;
  let shown: string[];

  beforeEach(async () => {
    root = await mkdtemp('/tmp/holdfast-test-');
    await fresh();
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  async function fresh(): Promise<void> {
    await rm(root, { recursive: true, force: true });
    shown = [];
    await mkdir(join(root, 'wal'), { recursive: true });
    await mkdir(join(root, 'snapshot'));
  }

  /** The snapshot's own log: the first `bytes`, in whole segments with rubbish at the end. */
  async function spool(bytes: number): Promise<WalSpool> {
    for (let at = 0; at < bytes; at += size) {
      const content = Buffer.alloc(size, 0xee);
      log.copy(content, 0, at, Math.min(at + size, bytes));
      await writeFile(join(root, 'snapshot', segmentName(1, base + BigInt(at), size)), content);
    }
    const created = new WalSpool({
      folder: join(root, 'wal'),
      snapshotFolder: join(root, 'snapshot'),
      segmentSize: size,
      timeline: 1,
      startLsn: base + 40n,
      stopLsn: base + BigInt(bytes),
      owner: undefined,
      sync: false,
      gate: async (name) => void shown.push(name),
    });
    await created.begin();
    return created;
  }

  async function content(timeline: number, from: number): Promise<Buffer> {
    return readFile(join(root, 'wal', segmentName(timeline, base + BigInt(from), size)));
  }

  it('holds the log whole however it was cut, and zeros behind its end', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 100, max: 2 * size }),
        fc.array(fc.integer({ min: 1, max: size }), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 0, max: 3000 }),
        async (snapshotBytes, cuts, overlap) => {
          await fresh();
          const created = await spool(snapshotBytes);
          let at = Math.max(0, snapshotBytes - overlap);
          for (const cut of cuts) {
            const end = Math.min(log.length, at + cut);
            await created.append(base + BigInt(at), log.subarray(at, end));
            at = Math.max(at, end - overlap);
          }
          const end = Number(created.end - base);
          await created.finish();
          const all: Buffer[] = [];
          for (let from = 0; from < end; from += size) all.push(await content(1, from));
          const whole = Buffer.concat(all);
          expect(whole.subarray(0, end).equals(log.subarray(0, end))).toBe(true);
          expect(whole.subarray(end).every((byte) => byte === 0)).toBe(true);
          expect(await readdir(join(root, 'wal'))).toEqual([...shown].sort());
        },
      ),
      { numRuns: 15 },
    );
  });

  it('begins a new timeline’s segment with what it shares with the old one', async () => {
    const created = await spool(size + 100);
    await created.append(base + BigInt(size + 100), log.subarray(size + 100, size + 9000));
    const switched = size + 5000;
    await created.switchTo(2, base + BigInt(switched));
    const other = Buffer.alloc(3000, 0x55);
    await created.append(base + BigInt(switched), other);
    await created.finish();
    const fresh = await content(2, size);
    expect(fresh.subarray(0, 5000).equals(log.subarray(size, switched))).toBe(true);
    expect(fresh.subarray(5000, 8000).equals(other)).toBe(true);
    expect(fresh.subarray(8000).every((byte) => byte === 0)).toBe(true);
    expect((await content(1, size)).subarray(0, 9000).equals(log.subarray(size, size + 9000))).toBe(true);
  });

  it('refuses a gap, another content, and a snapshot without its log', async () => {
    const created = await spool(1000);
    await expect(created.append(base + 1001n, log.subarray(1001, 1002))).rejects.toMatchObject({
      code: 'recovery.wal-missing',
    });
    const changed = Buffer.from(log.subarray(900, 2000));
    changed[50]! ^= 1;
    await expect(created.append(base + 900n, changed)).rejects.toMatchObject({
      code: 'recovery.wal-disagrees',
      details: { lsn: `0/${(base + 950n).toString(16).toUpperCase()}`, timeline: 1 },
    });
    await expect(created.switchTo(2, base + 5000n)).rejects.toMatchObject({ code: 'recovery.wal-missing' });
    await created.close();
    await rm(join(root, 'snapshot'), { recursive: true });
    await mkdir(join(root, 'snapshot'));
    const bare = new WalSpool({
      folder: join(root, 'wal'),
      snapshotFolder: join(root, 'snapshot'),
      segmentSize: size,
      timeline: 1,
      startLsn: base,
      stopLsn: base + 10n,
      owner: undefined,
      sync: true,
    });
    await expect(bare.begin()).rejects.toMatchObject({ code: 'recovery.wal-missing' });
  });
});
