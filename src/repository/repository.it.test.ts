import { execFileSync } from 'node:child_process';
import { chmod, lstat, mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { MemoryStore } from '../storage/memory.ts';
import type { Entry, LogPartHeader } from './contract.ts';
import {
  at,
  collect,
  type Fixture,
  facts,
  fixture,
  noise,
  openLog,
  PASSPHRASE,
  stretch,
  testContext,
  unlock,
  writeSnapshot,
} from './repository.fixtures.ts';
import { LocalState, Repository } from './repository.ts';

const context = testContext();
const { signal } = context;
const made: Fixture[] = [];

async function make(store = new MemoryStore()) {
  const one = await fixture(store);
  made.push(one);
  return one;
}

afterEach(async () => {
  for (const one of made.splice(0)) await one.cleanup();
});

async function names(store: MemoryStore, prefix = ''): Promise<string[]> {
  const all: string[] = [];
  for await (const { name } of store.list(prefix)) all.push(name);
  return all;
}

const verify = async (repository: Repository, depth: 'signatures' | 'digests' | 'content' = 'content') =>
  await repository.verify({ depth, unlock }, context);

test('what a snapshot holds comes back: bytes, modes, holes, links, empty and small files', async () => {
  const { repository, directory } = await make();
  const writer = await repository.writer();
  const run = await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, context);
  const large = noise(5_300_000);
  run.entry({ path: 'sub', type: 'directory', mode: 0o500, mtime: 1_600_000_000_000 });
  run.entry({ path: 'sub/empty', type: 'file', mode: 0o400 });
  run.entry({ path: 'link', type: 'symlink', mode: 0o777, target: 'sub/empty' });
  const lane = run.lane();
  const other = run.lane();
  lane.begin({ path: 'large', type: 'file', mode: 0o200, mtime: 1_600_000_000_000 });
  for (let i = 0; i < large.length; i += 100_003) {
    await lane.write(large.subarray(i, i + 100_003));
    if (i === 0) {
      other.begin({ path: 'other', type: 'file', mode: 0o600 });
      await other.write(Buffer.from('in another lane'));
      other.end();
    }
  }
  lane.end();
  lane.begin({ path: 'sparse', type: 'file', mode: 0o600 });
  await lane.write(Buffer.from('head'));
  lane.hole(3_000_000_000);
  await lane.write(Buffer.from('tail'));
  lane.end();
  const odd = 'sub/odd \n"name" é \u{1f600} \\';
  lane.begin({ path: odd, type: 'file', mode: 0o644 });
  await lane.write(Buffer.from('odd'));
  lane.end();
  for (let i = 0; i < 2000; i++) {
    lane.begin({ path: `many/${i}`, type: 'file', mode: 0o600 });
    await lane.write(Buffer.from(`file ${i}`));
    lane.end();
  }
  const { header, stats } = await run.publish(facts);
  await run.discard();
  expect(stats.files).toBe(2005);

  const reader = await repository.reader(unlock, context);
  const [listed] = await repository.snapshots('db', signal, []);
  expect(listed).toEqual(header);
  const snapshot = await reader.openSnapshot(header, signal);
  expect(snapshot.meta).toEqual(facts.meta);
  const to = join(directory, 'out');
  const done = await reader.extract(snapshot, { place: (entry) => join(to, entry.path) }, context);
  expect(done.files).toBe(2005);
  expect((await stat(join(to, 'large'))).mode & 0o7777).toBe(0o200);
  await chmod(join(to, 'large'), 0o600);
  expect((await readFile(join(to, 'large'))).equals(large)).toBe(true);
  expect(await readFile(join(to, 'other'), 'utf8')).toBe('in another lane');
  expect(await readFile(join(to, odd), 'utf8')).toBe('odd');
  expect(await readFile(join(to, 'many/1999'), 'utf8')).toBe('file 1999');
  expect(await readlink(join(to, 'link'))).toBe('sub/empty');
  expect((await stat(join(to, 'sub/empty'))).size).toBe(0);
  expect((await lstat(join(to, 'sub'))).mode & 0o7777).toBe(0o500);
  expect((await lstat(join(to, 'sub'))).mtimeMs).toBe(1_600_000_000_000);
  const sparse = await stat(join(to, 'sparse'));
  expect(sparse.size).toBe(3_000_000_008);
  expect(sparse.blocks * 512).toBeLessThan(1 << 20);
  const entries: Entry[] = [];
  for await (const entry of snapshot.entries(signal)) entries.push(entry);
  const small = entries.find(({ path }) => path === 'other') as Entry;
  expect((await reader.readEntry(snapshot, small, signal)).toString()).toBe('in another lane');
  expect((await verify(repository)).problems).toEqual([]);
});

test('extraction into a place that is taken, or behind a link of the listing, is refused', async () => {
  const { repository, directory } = await make();
  const writer = await repository.writer();
  const run = await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, context);
  run.entry({ path: 'away', type: 'symlink', mode: 0o777, target: directory });
  const lane = run.lane();
  lane.begin({ path: 'away/stolen', type: 'file', mode: 0o600 });
  await lane.write(Buffer.from('x'));
  lane.end();
  const { header } = await run.publish(facts);
  const reader = await repository.reader(unlock, context);
  const snapshot = await reader.openSnapshot(header, signal);
  const to = join(directory, 'out');
  const place = (entry: Entry) => join(to, entry.path);
  await expect(reader.extract(snapshot, { place }, context)).rejects.toMatchObject({
    code: 'repository.damaged',
  });
  expect(await readdir(directory)).not.toContain('stolen');
  await mkdir(join(directory, 'second'), { recursive: true });
  await writeFile(join(directory, 'second/stolen'), 'mine');
  const taken = (entry: Entry) => (entry.type === 'file' ? join(directory, 'second/stolen') : null);
  await expect(reader.extract(snapshot, { place: taken }, context)).rejects.toMatchObject({
    code: 'system.file-failed',
  });
  expect(await readFile(join(directory, 'second/stolen'), 'utf8')).toBe('mine');
});

// Only root can make a disk that is small enough.
test.skipIf(process.getuid?.() !== 0)('a full disk is an error that says so', async ({ skip }) => {
  const { repository, directory } = await make();
  const header = await writeSnapshot(repository, { file: noise(4_000_000) });
  const reader = await repository.reader(unlock, context);
  const snapshot = await reader.openSnapshot(header, signal);
  const to = join(directory, 'full');
  await mkdir(to);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', to], { stdio: 'ignore' });
  } catch {
    return skip('no file system may be mounted here');
  }
  try {
    const place = (entry: Entry) => join(to, entry.path);
    await expect(reader.extract(snapshot, { place }, context)).rejects.toMatchObject({
      code: 'system.disk-full',
    });
  } finally {
    execFileSync('umount', [to]);
  }
});

test('a hung store holds back the producer, and abort ends the run with its workers', async () => {
  const hanging = new MemoryStore({
    faults: ({ operation, name }) =>
      operation === 'put' && name.startsWith('packs/') ? { kind: 'hang' } : undefined,
  });
  const { repository } = await make(hanging);
  const abort = new AbortController();
  const writer = await repository.writer();
  const run = await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, testContext(abort.signal));
  const lane = run.lane();
  lane.begin({ path: 'endless', type: 'file', mode: 0o600 });
  const piece = noise(1 << 20);
  let taken = 0;
  const produce = (async () => {
    for (;;) {
      await lane.write(piece);
      taken++;
      await new Promise(setImmediate);
    }
  })();
  const ended = produce.catch((error: unknown) => error);
  let before = -1;
  while (before !== taken) {
    before = taken;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  // Four pack buffers of 16 MiB and a few frames are all there is.
  expect(taken).toBeLessThan(90);
  abort.abort(new Error('enough'));
  expect(await ended).toMatchObject({ message: 'enough' });
  await expect(run.publish(facts)).rejects.toThrow();
  await run.discard();
  expect(process.getActiveResourcesInfo().filter((name) => name === 'MessagePort')).toEqual([]);
  // The lock is free again.
  await (await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, context)).discard();
});

test('a store that fails ends the run with its error', async () => {
  const failing = new MemoryStore({
    faults: ({ operation, name }) =>
      operation === 'put' && name.startsWith('packs/') ? { kind: 'fail', code: 'storage.full' } : undefined,
  });
  const { repository } = await make(failing);
  await expect(writeSnapshot(repository, { a: noise(10) })).rejects.toMatchObject({ code: 'storage.full' });
  expect(await names(failing, 'snapshots/')).toEqual([]);
});

test('two at once are busy; a lock given back twice takes nobody else’s', async () => {
  const { repository } = await make();
  const writer = await repository.writer();
  const options = { source: 'db', kind: 'postgres' };
  const first = await writer.beginSnapshot(options, context);
  await expect(writer.beginSnapshot(options, context)).rejects.toMatchObject({ code: 'repository.busy' });
  await first.discard();
  const second = await writer.beginSnapshot(options, context);
  await first.discard();
  await expect(writer.beginSnapshot(options, context)).rejects.toMatchObject({ code: 'repository.busy' });
  await second.discard();
});

async function parts(repository: Repository): Promise<LogPartHeader[]> {
  return await repository.logParts('db', signal, []);
}

test('a log comes back as it was appended, merged or not', async () => {
  const { repository, store } = await make();
  const log = await openLog(repository);
  expect(log.head).toBeUndefined();
  log.startStream();
  const pieces = [noise(1000, 'a'), noise(300_000, 'b'), noise(50, 'c')];
  let position = 0;
  for (const piece of pieces) {
    const head = await log.append(stretch(position, piece), signal);
    position += piece.length;
    expect(head.to).toBe(at(position));
  }
  expect(await parts(repository)).toHaveLength(3);
  await log.merge(signal, true);
  await log.close();
  const [merged, ...more] = await parts(repository);
  expect(more).toEqual([]);
  expect(merged?.replaces?.last).toBe(2);
  const reader = await repository.reader(unlock, context);
  const content = await reader.openPart(merged as LogPartHeader, signal);
  expect((await collect(content.data())).equals(Buffer.concat(pieces))).toBe(true);
  expect(content.commits.map(({ position: p }) => p)).toEqual([0n, 1000n, 301_000n]);
  expect((await verify(repository)).problems).toEqual([]);

  // Damage to the merged part: the small ones are still there.
  store.damage((merged as LogPartHeader).name, (bytes) => {
    bytes[20] = (bytes[20] as number) ^ 1;
    return bytes;
  });
  const problems: { name: string }[] = [];
  expect(await repository.logParts('db', signal, problems as never)).toHaveLength(3);
  expect(problems.map(({ name }) => name)).toEqual([merged?.name]);

  const again = await openLog(repository);
  expect(again.head?.to).toBe(at(position));
  again.resume();
  await again.append(stretch(position, noise(10, 'd')), signal);
  await again.close();
});

test('an append that failed is resent unchanged, by the same writer or the next', async () => {
  let broken: 'fail' | 'lose-answer' | undefined;
  const store = new MemoryStore({
    faults: ({ operation, name }) =>
      broken !== undefined && operation === 'put' && name.startsWith('logs/') ? { kind: broken } : undefined,
  });
  const { repository } = await make(store);
  let log = await openLog(repository);
  log.startStream();
  await log.append(stretch(0, noise(100, '0')), signal);
  broken = 'lose-answer';
  await expect(log.append(stretch(100, noise(100, '1')), signal)).rejects.toMatchObject({
    code: 'storage.unreachable',
  });
  broken = undefined;
  const head = await log.append(stretch(100, noise(100, '1')), signal);
  expect(head.sequence).toBe(1);
  await log.append(stretch(200, noise(100, '2')), signal);
  broken = 'fail';
  await expect(log.append(stretch(300, noise(100, '3')), signal)).rejects.toThrow();
  await log.close();
  broken = undefined;
  log = await openLog(repository);
  expect(log.head).toMatchObject({ sequence: 3, to: at(400) });
  await log.close();
  const all = await parts(repository);
  expect(all.map(({ sequence }) => sequence)).toEqual([0, 1, 2, 3]);
  expect((await verify(repository)).problems).toEqual([]);
});

test('a torn spool is put aside, said, and hinders nothing', async () => {
  const { repository, state } = await make();
  let log = await openLog(repository);
  log.startStream();
  await log.append(stretch(0, noise(100)), signal);
  await log.close();
  await writeFile(join(state.directory, repository.id, 'db/spool/000000000007'), Buffer.from([0, 0]));
  await writeFile(join(state.directory, repository.id, 'db/spool/000000000008'), noise(500));
  log = await openLog(repository);
  expect(log.head?.to).toBe(at(100));
  log.resume();
  await log.append(stretch(100, noise(10)), signal);
  await log.close();
});

test('lost or corrupt state costs a new stream and a new chain, nothing else', async () => {
  const { repository, state } = await make();
  await writeSnapshot(repository, { a: noise(10) });
  const log = await openLog(repository);
  log.startStream();
  await log.append(stretch(0, noise(100)), signal);
  await log.close();
  const folder = join(state.directory, repository.id, 'db');
  for (const name of ['log-head.json', 'snapshot-head.json']) await writeFile(join(folder, name), '{"torn');
  const again = await openLog(repository);
  expect(again.head).toBeUndefined();
  await again.close();
  const header = await writeSnapshot(repository, { a: noise(10) });
  expect(header.previous).toBeNull();
});

test('removed objects are noticed', async () => {
  const { repository, store } = await make();
  const first = await writeSnapshot(repository, { a: noise(10) });
  const second = await writeSnapshot(repository, { b: noise(10) });
  expect(second.previous).toBe(first.digest);
  await store.delete(first.name);
  const problems: { name: string; code: string }[] = [];
  await repository.snapshots('db', signal, problems as never);
  expect(problems).toMatchObject([{ name: second.name, code: 'repository.chain-broken' }]);
  for (const name of await names(store, 'packs/')) await store.delete(name);
  for (const depth of ['signatures', 'digests', 'content'] as const) {
    const report = await verify(repository, depth);
    expect(report.problems.some(({ name }) => name.startsWith('packs/'))).toBe(true);
  }
});

test('an object of a later format hides nothing of the others', async () => {
  const { repository, store } = await make();
  const header = await writeSnapshot(repository, { a: noise(10) });
  const bytes = Buffer.from(await store.get(header.name));
  const length = bytes.readUInt32BE(8);
  const changed = Buffer.from(
    bytes.toString('latin1', 12, 12 + length).replace('"format":1', '"format":2'),
    'latin1',
  );
  const forged = Buffer.concat([bytes.subarray(0, 12), changed, bytes.subarray(12 + length)]);
  await store.put(header.name.replace(/[0-9a-f]{64}$/, 'f'.repeat(64)), [forged]);
  const problems: { code: string }[] = [];
  expect(await repository.snapshots('db', signal, problems as never)).toHaveLength(1);
  expect(problems).toMatchObject([{ code: 'repository.newer-format' }]);
});

test('another repository at a known address is refused, for opening and for creating', async () => {
  const { state, store, repository } = await make();
  const other = await make();
  await expect(Repository.open(other.store, state, context)).rejects.toMatchObject({
    code: 'repository.not-the-pinned-one',
  });
  const empty = new MemoryStore();
  await expect(
    Repository.create(empty, state, { ...unlock, writerName: 'x' }, context),
  ).rejects.toMatchObject({ code: 'repository.not-the-pinned-one' });
  expect(await names(empty)).toEqual([]);
  await expect(
    Repository.create(store, state, { ...unlock, writerName: 'x' }, context),
  ).rejects.toMatchObject({ code: 'repository.exists' });
  expect((await Repository.open(store, state, context)).id).toBe(repository.id);
});

test('a roster that was rolled back is refused by a host that saw the later one', async () => {
  const { repository, store, directory } = await make();
  const second = await LocalState.open(join(directory, 'second'));
  const there = await Repository.open(store, second, context);
  await expect(there.writer()).rejects.toMatchObject({ code: 'repository.writer-not-enrolled' });
  await there.enrolThisHost(unlock, 'second', context);
  await there.enrolThisHost(unlock, 'second', context);
  expect(there.roster().writers).toHaveLength(2);
  await writeSnapshot(there, { a: noise(10) }, 'web');
  const rosters = await names(store, 'roster/');
  expect(rosters).toHaveLength(2);
  await store.delete(rosters[1] as string);
  await expect(Repository.open(store, second, context)).rejects.toMatchObject({ code: 'repository.damaged' });
  // The first host never saw it: for it, the second is unknown.
  const problems: { name: string }[] = [];
  expect(await repository.snapshots('web', signal, [])).toHaveLength(0);
  await repository.snapshots('web', signal, problems as never);
  expect(problems).toHaveLength(1);
});

test('keys: wrong ones say so; what a killed creation left hinders nothing', async () => {
  const store = new MemoryStore();
  const killed = new MemoryStore({
    sharing: store,
    faults: ({ operation, name }) =>
      operation === 'put' && name === 'holdfast.json' ? { kind: 'fail' } : undefined,
  });
  await expect(make(killed)).rejects.toThrow();
  const { repository } = await make(store);
  expect((await names(store, 'keys/')).length).toBe(4);
  expect((await names(store, 'roster/')).length).toBe(2);
  await expect(repository.reader({ passphrase: 'not the right one' }, context)).rejects.toMatchObject({
    code: 'repository.wrong-key',
  });
  await expect(repository.reader({}, context)).rejects.toMatchObject({ code: 'repository.locked' });
  await expect(repository.reader({ identity: 'nonsense' }, context)).rejects.toMatchObject({
    code: 'repository.wrong-key',
  });
  await repository.reader(unlock, context);
  const kit = await repository.kit(signal);
  expect(kit.text).not.toContain(PASSPHRASE);
  expect(kit.text).not.toContain('AGE-SECRET-KEY');
  expect(kit.text).toContain(repository.id);
});

test('verify tells of wrapped keys that are gone or are no age files', async () => {
  const { repository, store } = await make();
  await writeSnapshot(repository, { a: noise(10) });
  expect((await verify(repository, 'signatures')).problems).toEqual([]);
  const [admin, data] = await names(store, 'keys/');
  store.damage(data!, () => Buffer.from('not an age file at all, though long enough to be one'));
  expect((await verify(repository, 'signatures')).problems).toMatchObject([
    { name: data },
    { name: 'keys/' },
  ]);
  await expect(repository.reader(unlock, context)).rejects.toMatchObject({ code: 'repository.wrong-key' });
  await store.delete(data!);
  expect((await verify(repository, 'signatures')).problems).toMatchObject([
    { name: 'keys/', message: expect.stringContaining('data key') },
  ]);
  await expect(repository.reader(unlock, context)).rejects.toMatchObject({ code: 'repository.damaged' });
  await store.delete(admin!);
  expect((await verify(repository, 'signatures')).problems).toHaveLength(2);
});

test('a stray file is no source', async () => {
  const { repository, store } = await make();
  await writeSnapshot(repository, { a: noise(10) });
  for (const name of ['snapshots/a-file', 'snapshots/zz', 'logs/b-file'])
    await store.put(name, [Buffer.from('stray')]);
  expect(await repository.sources(signal)).toEqual(['db']);
});

test('what keeps a repository from opening is mended from a copy, not by verify', async () => {
  const { store, state } = await make();
  const [roster] = await names(store, 'roster/');
  for (const name of [roster!, 'holdfast.json']) {
    store.damage(name, (bytes) => bytes.subarray(0, 20));
    await expect(Repository.open(store, state, context)).rejects.toMatchObject({
      code: 'repository.damaged',
      next: expect.stringContaining(`Put ${name} back from a copy`),
    });
  }
});
