/** Whatever happens to an object, verification names it and nothing of it is ever restored silently. */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { isHoldfastError } from '../../src/core/errors.ts';
import type { LogPartHeader, SnapshotHeader } from '../../src/repository/contract.ts';
import {
  collect,
  type Fixture,
  fixture,
  noise,
  openLog,
  stretch,
  testContext,
  unlock,
  writeSnapshot,
} from '../../src/repository/repository.fixtures.ts';
import { LocalState, Repository } from '../../src/repository/repository.ts';
import { MemoryStore } from '../../src/storage/memory.ts';

const context = testContext();
const { signal } = context;
let made: Fixture & { store: MemoryStore };
let objects: Map<string, Uint8Array>;
let headers: SnapshotHeader[];
let parts: LogPartHeader[];
let scratch: string;
/** The identity itself: wrapping costs a derivation each time. */
let identity: { identity: string };
const digests = new Map<string, string>();

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-damage-'));
  made = await fixture();
  const { repository, store } = made;
  await writeSnapshot(repository, { a: noise(3000, 'a'), b: Buffer.alloc(5000, 7) });
  await writeSnapshot(repository, { a: noise(3000, 'a2'), c: Buffer.from('c') });
  const log = await openLog(repository);
  log.startStream();
  await log.append(stretch(0, noise(700, 'l1')), signal);
  await log.append(stretch(700, noise(700, 'l2')), signal);
  await log.append(stretch(1400, noise(700, 'l3')), signal);
  await log.close();
  objects = new Map();
  for await (const { name } of store.list('')) objects.set(name, await store.get(name));
  const { openDataKey, readKeys } = await import('../../src/repository/keys.ts');
  const secret = await openDataKey(await readKeys(store, signal), unlock, () => true);
  identity = { identity: secret };
  headers = await repository.snapshots('db', signal, []);
  parts = await repository.logParts('db', signal, []);
  for (const header of headers) digests.set(header.name, await restore(store, repository, header));
  for (const part of parts) digests.set(part.name, await read(store, repository, part));
});

afterAll(async () => {
  await made.cleanup();
  await rm(scratch, { recursive: true, force: true });
});

let places = 0;

/** Digest of everything that a snapshot restores. */
async function restore(_: MemoryStore, repository: Repository, header: SnapshotHeader): Promise<string> {
  const reader = await repository.reader(identity, context);
  const snapshot = await reader.openSnapshot(header, signal);
  const to = join(scratch, String(places++));
  await reader.extract(snapshot, { place: (entry) => join(to, entry.path), sync: false }, context);
  const hash = createHash('sha256');
  for (const name of (await readdir(to, { recursive: true, withFileTypes: true })).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    hash.update(`${name.name}\0`);
    if (name.isFile()) hash.update(await readFile(join(name.parentPath, name.name)));
  }
  await rm(to, { recursive: true, force: true });
  return hash.digest('hex');
}

async function read(_: MemoryStore, repository: Repository, part: LogPartHeader): Promise<string> {
  const reader = await repository.reader(identity, context);
  const content = await reader.openPart(part, signal);
  const hash = createHash('sha256').update(JSON.stringify(content.meta));
  hash.update(content.commits.map((commit) => `${commit.position} ${commit.time} ${commit.id}`).join());
  return hash.update(await collect(content.data())).digest('hex');
}

async function copyWith(change: (objects: Map<string, Uint8Array>) => void): Promise<MemoryStore> {
  const changed = new Map(objects);
  change(changed);
  const store = new MemoryStore();
  for (const [name, bytes] of changed) await store.put(name, [bytes]);
  return store;
}

/** Everything that verification says, in one text; failing to open counts, when it is said properly. */
async function findings(store: MemoryStore): Promise<string> {
  try {
    const repository = await Repository.open(store, null, context);
    const report = await repository.verify({ depth: 'content', unlock: identity }, context);
    return report.problems.map(({ name, message }) => `${name} ${message}`).join('\n');
  } catch (error) {
    if (!isHoldfastError(error)) throw error;
    return `${error.code} ${error.message} ${JSON.stringify(error.details)}`;
  }
}

async function neverSilently(store: MemoryStore, restoring: boolean): Promise<void> {
  let repository: Repository;
  try {
    repository = await Repository.open(store, null, context);
  } catch (error) {
    expect(isHoldfastError(error)).toBe(true);
    return;
  }
  const look = async (name: string, work: () => Promise<string>) => {
    try {
      expect(await work()).toBe(digests.get(name));
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
    }
  };
  for (const part of parts) await look(part.name, () => read(store, repository, part));
  if (!restoring) return;
  for (const header of headers) await look(header.name, () => restore(store, repository, header));
}

/** Wrapped keys are vouched for by nothing but the key kit (docs/03-format.md §13). */
const covered = () => [...objects.keys()].filter((name) => !name.startsWith('keys/'));

test('the undamaged repository has no finding', async () => {
  expect(await findings(await copyWith(() => undefined))).toBe('');
  expect(headers).toHaveLength(2);
  expect(parts).toHaveLength(3);
});

test('every flipped byte is found, and named', { timeout: 180_000 }, async () => {
  const total = covered().reduce((sum, name) => sum + (objects.get(name) as Uint8Array).length, 0);
  // Verification of this repository takes some milliseconds: all bytes would take minutes.
  const step = Math.max(1, Math.ceil(total / 250));
  let looked = 0;
  for (const name of covered()) {
    const bytes = objects.get(name) as Uint8Array;
    const edges = [
      0,
      8,
      11,
      12,
      13,
      bytes.length - 1,
      bytes.length - 2,
      bytes.length - 16,
      bytes.length - 17,
    ];
    const places = new Set(edges);
    for (let at = looked % step; at < bytes.length; at += step) places.add(at);
    for (const at of places) {
      looked++;
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] as number) ^ (1 << (looked % 8));
      const store = await copyWith((all) => all.set(name, flipped));
      expect(await findings(store), `${name} byte ${at}`).toContain(name);
      if (looked % 25 === 0) await neverSilently(store, true);
    }
  }
});

test('every cut, and everything behind the end, is found', { timeout: 120_000 }, async () => {
  for (const name of covered()) {
    const bytes = objects.get(name) as Uint8Array;
    for (const length of [
      0,
      7,
      11,
      40,
      bytes.length >> 1,
      bytes.length - 17,
      bytes.length - 16,
      bytes.length - 1,
    ]) {
      const store = await copyWith((all) => all.set(name, bytes.subarray(0, length)));
      expect(await findings(store), `${name} cut to ${length}`).toContain(name);
      await neverSilently(store, length === bytes.length - 1);
    }
    const longer = await copyWith((all) => all.set(name, Buffer.concat([bytes, Buffer.from([0])])));
    expect(await findings(longer), `${name} and a byte more`).toContain(name);
  }
});

test('every removed object is found, but for what only a witness can know', { timeout: 60_000 }, async () => {
  const newest = [headers.at(-1)?.name, parts.at(-1)?.name];
  for (const name of covered()) {
    const store = await copyWith((all) => all.delete(name));
    const found = await findings(store);
    if (newest.includes(name)) expect(found).toBe('');
    else if (name === 'holdfast.json') expect(found).toContain('repository.not-found');
    else expect(found, name).not.toBe('');
    await neverSilently(store, true);
  }
});

test('siblings that were swapped are found, and never restored for one another', {
  timeout: 60_000,
}, async () => {
  const names = covered();
  for (const area of ['packs/', 'lists/', 'snapshots/', 'logs/']) {
    const siblings = names.filter((name) => name.startsWith(area));
    for (const [i, name] of siblings.entries()) {
      const other = siblings[(i + 1) % siblings.length] as string;
      const store = await copyWith((all) => {
        all.set(name, objects.get(other) as Uint8Array);
        all.set(other, objects.get(name) as Uint8Array);
      });
      expect(await findings(store), `${name} for ${other}`).toContain(name);
      await neverSilently(store, true);
    }
  }
});

test('a pack that an attacker sealed under a bound name is refused', async () => {
  const { PackReader, PackWriter, PACK_BYTES } = await import('../../src/repository/pack.ts');
  const { decodeIdentity } = await import('../../src/repository/recipient.ts');
  const own = decodeIdentity(identity.identity);
  const seal = (source: string) => {
    const buffer = new Uint8Array(PACK_BYTES);
    const writer = headers[0]?.writer as string;
    const pack = new PackWriter(
      { repository: made.repository.id, source, writer, epoch: 1, recipients: [own.publicKey] },
      1,
      buffer,
    );
    pack.frame(Buffer.from('forged'));
    const binding = pack.finish();
    return { binding, bytes: buffer.slice(0, binding.bytes) };
  };
  const honest = seal('db');
  const forged = seal('db');
  const foreign = seal('web');
  const sealedBy = { repository: made.repository.id, source: 'db', writer: headers[0]?.writer as string };
  expect(PackReader.fromBytes(honest.bytes, honest.binding, sealedBy, own).frameSync(0).toString()).toBe(
    'forged',
  );
  expect(() => PackReader.fromBytes(forged.bytes, honest.binding, sealedBy, own)).toThrow(/header/);
  expect(() => PackReader.fromBytes(foreign.bytes, foreign.binding, sealedBy, own)).toThrow(/another source/);
  const state = await LocalState.open(join(scratch, 'unused'));
  expect(await state.readSeed(made.repository.id)).toBeUndefined();
});
