/** What a loss of power, a failing disk or a kill at a named system call does to the local store. */
import { link, mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { component, requireComponent } from '../../scripts/rig.ts';
import { LocalStore } from '../../src/storage/local.ts';
import { runWriter } from './store-process.ts';
import { countFsyncs, lostAtAcknowledgement } from './store-trace.ts';

const hasStrace = await requireComponent('strace');
const calls =
  'trace=openat,write,pwrite64,pwritev,writev,fsync,fdatasync,link,linkat,unlink,unlinkat,mkdir,mkdirat,rename,renameat,renameat2';

let base: string;
let root: string;
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'holdfast-power-'));
  root = join(base, 'repository');
  await mkdir(root);
});
afterEach(() => rm(base, { recursive: true }));

/** The writer's lines and the trace of its calls. `inject`: faults for strace to make. */
async function traced(args: readonly string[], inject: readonly string[] = []) {
  const strace = join((await component('strace')).binDir, 'strace');
  const file = join(base, 'trace');
  const faults = inject.flatMap((fault) => ['-e', `inject=${fault}`]);
  const lines = await runWriter(
    [root, ...args],
    [strace, '-f', '-y', '-qq', '-s', '300', '-e', calls, ...faults, '-o', file],
  );
  return { lines, trace: await readFile(file, 'utf8') };
}

const objects = ['packs/aa/first', '3000000', 'packs/aa/second', '10', 'packs/bb/third', '0', 'top', '5'];
const names = objects.filter((_, i) => i % 2 === 0);
const all = (outcome: string) => names.map((name) => `ACK ${name} ${outcome}`);

describe.skipIf(!hasStrace)('power lost at an acknowledgement', () => {
  it('takes nothing away that was created', async () => {
    const { lines, trace } = await traced(['put', ...objects]);
    expect(lines).toEqual(all('created'));
    expect(lostAtAcknowledgement(trace, root)).toEqual(names.map((name) => ({ name, lost: [] })));
    expect(trace).not.toMatch(/rename/);
  });

  it('takes nothing away that another process had made and not yet fsynced', async () => {
    const store = await LocalStore.open(root);
    for (const [i, name] of names.entries())
      await store.put(name, [Buffer.alloc(Number(objects[2 * i + 1]), name)]);
    const { lines, trace } = await traced(['put', ...objects]);
    expect(lines).toEqual(all('exists'));
    expect(lostAtAcknowledgement(trace, root)).toEqual(names.map((name) => ({ name, lost: [] })));
  });

  it('takes nothing away in folders that another process had made', async () => {
    await mkdir(join(root, 'packs/aa'), { recursive: true });
    const { trace } = await traced(['put', ...objects]);
    expect(lostAtAcknowledgement(trace, root)).toEqual(names.map((name) => ({ name, lost: [] })));
  });

  it('is noticed by the oracle where any one fsync is left out', async () => {
    const { trace } = await traced(['put', 'packs/aa/first', '1000']);
    const lostWithout = Array.from(
      { length: countFsyncs(trace) },
      (_, skipped) => lostAtAcknowledgement(trace, root, skipped)[0]?.lost.length ?? -1,
    );
    // The first is of tmp/ in the root, which the root's fsync for packs/ repeats: all others must be missed.
    expect(lostWithout.map((lost) => lost > 0)).toEqual([false, true, true, true, true]);
  });
});

describe.skipIf(!hasStrace)('a disk that fails', () => {
  it('at the fsync of the bytes fails the put, throws the file away and never asks the same file again', async () => {
    const { lines, trace } = await traced(['put', 'a', '1000'], ['fsync:error=EIO:when=2']);
    expect(lines).toEqual(['ERROR a storage.failed 1']);
    expect(trace.match(/fsync\(\d+<[^>]*\/tmp\/[0-9a-f]{32}>/g)).toHaveLength(1);
    expect(await readdir(root)).toEqual(['tmp']);
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
  });

  it('at the fsync of the folder acknowledges nothing, and the next put makes it durable', async () => {
    const { lines } = await traced(['put', 'a', '1000', 'a', '1000'], ['fsync:error=EIO:when=3']);
    expect(lines).toEqual(['ERROR a storage.failed 1', 'ACK a exists']);
  });

  it.each([
    ['pwrite64,pwritev:error=ENOSPC:when=1', 'storage.full 1'],
    ['pwrite64,pwritev:error=EIO:when=1', 'storage.failed 1'],
    ['fsync:error=EDQUOT:when=2', 'storage.full 1'],
    ['mkdir,mkdirat:error=EROFS', 'storage.read-only 1'],
    ['link,linkat:error=EPERM', 'storage.no-links 4'],
    ['link,linkat:error=EOPNOTSUPP', 'storage.no-links 4'],
    ['link,linkat:error=EPERM:when=1', 'storage.denied 1'],
    ['link,linkat:error=ENOSPC', 'storage.full 1'],
  ])('%s is %s, and leaves nothing', async (fault, expected) => {
    const { lines } = await traced(['put', 'a', '1000'], [fault]);
    expect(lines).toEqual([`ERROR a ${expected}`]);
    const left = await readdir(root, { recursive: true });
    expect(left.filter((path) => path !== 'tmp')).toEqual([]);
  });

  it('to remove a temporary file does not fail what is durable', async () => {
    const { lines } = await traced(['put', 'a', '1000', 'b', '5'], ['unlink,unlinkat:error=EPERM']);
    expect(lines).toEqual(['ACK a created', 'ACK b created']);
  });
});

describe.skipIf(!hasStrace)('a slow disk', () => {
  it('publishes nothing any more once a put was aborted', async () => {
    const { lines } = await traced(['abort', '300', 'a', '1000'], ['fsync:delay_exit=900000:when=2']);
    expect(lines).toEqual(['ABORTED a']);
    expect(await readdir(root)).toEqual(['tmp']);
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
  });

  it('whose answer to a link gets lost on the network has created the object all the same', async () => {
    // What a repeated request finds: the name is there, and it is the very file.
    const writing = traced(['put', 'a', '1000'], ['link,linkat:delay_enter=900000:when=1']);
    const temporary = async () => (await readdir(join(root, 'tmp')).catch(() => []))[0];
    const whole = async (name: string) => (await stat(join(root, 'tmp', name))).size === 1000;
    let name = await temporary();
    while (name === undefined || !(await whole(name))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      name = await temporary();
    }
    await link(join(root, 'tmp', name), join(root, 'a'));
    expect((await writing).lines).toEqual(['ACK a created']);
  });
});

describe.skipIf(!hasStrace)('a kill at a system call', () => {
  const points = [
    ...[1, 2, 3].map((n) => `mkdir,mkdirat:signal=KILL:when=${n}`),
    ...[1, 2, 3, 4, 5].map((n) => `fsync:signal=KILL:when=${n}`),
    'pwrite64,pwritev:signal=KILL:when=1',
    'link,linkat:signal=KILL:when=1',
    'unlink,unlinkat:signal=KILL:when=1',
  ];
  it.each(points)('%s leaves nothing partial, and the next process needs no repair', async (point) => {
    const { lines } = await traced(['put', 'packs/aa/x', '300000'], [point]);
    expect(lines).toEqual([]);
    const store = await LocalStore.open(root);
    const content = Buffer.alloc(300_000, 'packs/aa/x');
    for await (const { name } of store.list('')) expect(content.equals(await store.get(name))).toBe(true);
    await store.put('packs/aa/x', [content]);
    expect(content.equals(await store.get('packs/aa/x'))).toBe(true);
  });
});
