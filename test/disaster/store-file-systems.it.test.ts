/** The local store on folders that are append-only, full, read-only or unmounted: real ones. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Logger } from '../../src/core/log.ts';
import { LocalStore } from '../../src/storage/local.ts';
import { runWriter, skipLoudly } from './store-process.ts';

const run = promisify(execFile);
const isRoot = process.getuid?.() === 0;
const code = (expected: string) => expect.objectContaining({ code: expected });
const bytes = [Buffer.from('content')];

async function works(program: string, ...args: string[]): Promise<boolean> {
  return run(program, args).then(
    () => true,
    () => false,
  );
}

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-fs-'));
});
afterEach(() => rm(root, { recursive: true }));

async function canAppendOnly(): Promise<boolean> {
  const probe = await mkdtemp(join(tmpdir(), 'holdfast-fs-'));
  const can = isRoot && (await works('chattr', '+a', probe)) && (await works('chattr', '-a', probe));
  await rm(probe, { recursive: true });
  return can || !skipLoudly('append-only folders need root and a file system with chattr +a');
}

async function canMount(): Promise<boolean> {
  const probe = await mkdtemp(join(tmpdir(), 'holdfast-fs-'));
  const can =
    isRoot &&
    (await works('mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', probe)) &&
    (await works('umount', probe));
  await rm(probe, { recursive: true });
  return can || !skipLoudly('full, read-only and unmounted file systems need root and the right to mount');
}

function listeningLog() {
  const warnings: string[] = [];
  const ignore = () => undefined;
  const log: Logger = {
    log: ignore,
    debug: ignore,
    info: ignore,
    error: ignore,
    warn: (message) => warnings.push(message),
    with: () => log,
  };
  return { log, warnings };
}

describe.skipIf(!(await canAppendOnly()))('append-only folders', () => {
  const folders = ['.', 'packs', 'packs/aa'];
  const set = (flag: string, names: readonly string[]) =>
    run('chattr', [flag, ...names.map((name) => join(root, name))]);
  beforeEach(async () => {
    await (await LocalStore.open(root)).put('packs/aa/before', bytes);
  });
  afterEach(() => set('-a', [...folders, 'tmp']));

  it('take objects, never let them go, and leave nothing where tmp/ is an ordinary folder', async () => {
    await set('+a', folders);
    const { log, warnings } = listeningLog();
    const store = await LocalStore.open(root, { log });
    expect((await store.put('packs/aa/x', bytes)).outcome).toBe('created');
    expect((await store.put('packs/bb/x', bytes)).outcome).toBe('created');
    expect((await store.put('packs/aa/x', bytes)).outcome).toBe('exists');
    await expect(store.put('packs/aa/x', [Buffer.from('other')])).rejects.toEqual(code('storage.conflict'));
    await expect(store.delete('packs/aa/x')).rejects.toEqual(code('storage.denied'));
    expect(Buffer.from(await store.get('packs/aa/x')).toString()).toBe('content');
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('take objects where tmp/ is append-only too, and say once what that leaves', async () => {
    await set('+a', [...folders, 'tmp']);
    const { log, warnings } = listeningLog();
    const store = await LocalStore.open(root, { log });
    for (const name of ['packs/aa/x', 'packs/aa/y', 'z'])
      expect((await store.put(name, bytes)).outcome).toBe('created');
    await store.close();
    expect(warnings).toEqual([expect.stringContaining('append-only')]);
    const listed: string[] = [];
    for await (const { name } of store.list('')) listed.push(name);
    expect(listed).toEqual(['packs/aa/before', 'packs/aa/x', 'packs/aa/y', 'z']);
  });
});

describe.skipIf(!(await canMount()))('a small disk', () => {
  let disk: string;
  beforeEach(async () => {
    disk = join(root, 'disk');
    await mkdir(disk);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m,nr_inodes=12', 'tmpfs', disk]);
  });
  afterEach(() => works('umount', disk));

  it('that is full says so, keeps what it has, and goes on when there is space', async () => {
    const store = await LocalStore.open(disk);
    await store.put('kept', [Buffer.alloc(500_000, 1)]);
    const failed = store.put('large', [Buffer.alloc(400_000, 2), Buffer.alloc(400_000, 3)]);
    await expect(failed).rejects.toMatchObject({
      code: 'storage.full',
      exit: 1,
      next: expect.stringContaining(disk),
    });
    expect(await readdir(join(disk, 'tmp'))).toEqual([]);
    expect(await store.head('large')).toBeUndefined();
    expect((await store.get('kept')).byteLength).toBe(500_000);
    await store.delete('kept');
    expect((await store.put('large', [Buffer.alloc(800_000, 2)])).outcome).toBe('created');
  });

  it('that has no inodes left says so', async () => {
    const store = await LocalStore.open(disk);
    const fill = async () => {
      for (let i = 0; ; i += 1) await store.put(`d${i}/x`, bytes);
    };
    await expect(fill()).rejects.toMatchObject({
      code: 'storage.full',
      next: expect.stringContaining('df -i'),
    });
  });

  it('that turned read-only says so and can be read', async () => {
    const store = await LocalStore.open(disk);
    await store.put('a', bytes);
    await run('mount', ['-o', 'remount,ro', disk]);
    await expect(store.put('b', bytes)).rejects.toEqual(code('storage.read-only'));
    await expect(store.delete('a')).rejects.toEqual(code('storage.read-only'));
    expect(Buffer.from(await (await LocalStore.open(disk)).get('a')).toString()).toBe('content');
  });

  it('that was unmounted is unreachable, and nothing is written where it was', async () => {
    const store = await LocalStore.open(disk);
    await store.put('p/a', bytes);
    await run('umount', [disk]);
    for (const call of [
      store.put('p/b', bytes),
      store.put('c', bytes),
      store.get('p/a'),
      store.head('p/a'),
    ]) {
      await expect(call).rejects.toMatchObject({ code: 'storage.unreachable', exit: 7 });
    }
    await expect(store.list('p/').next()).rejects.toEqual(code('storage.unreachable'));
    expect(await readdir(disk)).toEqual([]);
  });
});

it('a limit on the size of files is a full store', async () => {
  const limited = ['sh', '-c', 'trap "" XFSZ; ulimit -f 64; exec "$@"', 'sh'];
  const lines = await runWriter([root, 'put', 'small', '1000', 'large', '3000000', 'again', '1000'], limited);
  expect(lines).toEqual(['ACK small created', 'ERROR large storage.full 1', 'ACK again created']);
  expect(await readdir(join(root, 'tmp'))).toEqual([]);
});
