import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LocalState } from './local-state.ts';
import { PackPool } from './pack-pool.ts';
import { generateIdentity } from './recipient.ts';

let directory: string;
let state: LocalState;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-state-'));
  state = await LocalState.open(directory);
});
afterEach(async () => await rm(directory, { recursive: true, force: true }));

const lockFile = async (content: string) => {
  await mkdir(join(directory, 'r/s'), { recursive: true });
  await writeFile(join(directory, 'r/s/backup.lock'), content);
};

test('a lock of a live process holds, and says whose it is', async () => {
  const lock = await state.source('r', 's').lock('backup', 'a backup');
  await expect(state.source('r', 's').lock('backup', 'a backup')).rejects.toMatchObject({
    code: 'repository.busy',
    details: { process: process.pid },
    message: expect.stringContaining(`, ${process.pid},`),
  });
  await state.source('r', 'other').lock('backup', 'a backup');
  await lock.release();
  await (await state.source('r', 's').lock('backup', 'a backup')).release();
});

test.each([
  ['a dead process', '4194304 1\n'],
  // Only Linux tells when a process began.
  ...(process.platform === 'linux' ? [['a process id that was used again', `${process.pid} 1\n`]] : []),
  ['a torn file', ''],
  ['garbage', 'what is this'],
])('a lock of %s is taken over', async (_, content) => {
  await lockFile(content as string);
  await (await state.source('r', 's').lock('backup', 'a backup')).release();
});

test('state that cannot be used is an error with a code, and leaves nothing half', async () => {
  await writeFile(join(directory, 'r'), 'a file where a folder should be');
  await expect(state.source('r', 's').write('log-head', {})).rejects.toMatchObject({
    code: 'repository.state-unusable',
  });
  await expect(state.source('r', 's').lock('backup', 'x')).rejects.toMatchObject({
    code: 'repository.state-unusable',
  });
  await expect(LocalState.open(join(directory, 'r', 'below'))).rejects.toMatchObject({
    code: 'repository.state-unusable',
  });
  expect(await state.readPin('r')).toBeUndefined();
  expect(await readdir(directory)).toEqual(['r']);
});

test('torn pins and seeds count as lost', async () => {
  await state.writeSeed('r', new Uint8Array(32).fill(5));
  expect((await state.readSeed('r'))?.length).toBe(32);
  for (const torn of ['', '{', '7', 'null', '{"seed":"short"}']) {
    await writeFile(join(directory, 'r/writer.json'), torn);
    expect(await state.readSeed('r'), torn).toBeUndefined();
    await writeFile(join(directory, 'r/pin.json'), torn);
    expect(await state.pinOfAddress('memory:'), torn).toBeUndefined();
  }
});

test('a worker that dies fails every job that waits for it', { timeout: 20_000 }, async () => {
  // No identity: each worker ends while it starts.
  const data = { identity: 'no identity', sealedBy: { repository: 'r', source: 's', writer: 'w' } };
  const pool = new PackPool(data);
  const pack = { digest: 'a'.repeat(64), bytes: 3, headerDigest: 'b'.repeat(64) };
  const jobs = Array.from({ length: 6 }, () => pool.run({ pack, bytes: new Uint8Array(3), pieces: [] }));
  for (const result of await Promise.allSettled(jobs)) {
    expect(result).toMatchObject({ status: 'rejected', reason: { code: 'system.internal' } });
  }
  await pool.close();
  const sound = new PackPool({ ...data, identity: generateIdentity() });
  await expect(sound.run({ pack, bytes: new Uint8Array(3), pieces: [] })).rejects.toMatchObject({
    code: 'repository.damaged',
  });
  await sound.close();
});
