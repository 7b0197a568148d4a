import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HeadCache } from './head-cache.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-heads-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

test('what was checked once is known again, by name and length', async () => {
  const path = join(folder, 'snapshots.heads');
  const first = await HeadCache.open(path);
  expect(first.get('a', 10)).toBeUndefined();
  first.add('a', 10, { writer: 'w' });
  await first.save();
  const second = await HeadCache.open(path);
  expect(second.get('a', 10)).toEqual({ writer: 'w' });
  expect(second.get('a', 11)).toBeUndefined();
  expect(second.get('b', 10)).toBeUndefined();
});

test('objects that are gone are forgotten', async () => {
  const path = join(folder, 'snapshots.heads');
  const first = await HeadCache.open(path);
  first.add('a', 1, {});
  first.add('b', 1, {});
  await first.save();
  const second = await HeadCache.open(path);
  second.get('b', 1);
  await second.save();
  const third = await HeadCache.open(path);
  expect(third.get('a', 1)).toBeUndefined();
  expect(third.get('b', 1)).toEqual({});
});

test('a cache that was cut counts as empty', async () => {
  const path = join(folder, 'snapshots.heads');
  const first = await HeadCache.open(path);
  first.add('a', 1, { x: 1 });
  await first.save();
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.slice(0, -4));
  expect((await HeadCache.open(path)).get('a', 1)).toBeUndefined();
});

test('a cache that can be neither read nor written stops nobody from listing', async () => {
  const path = join(folder, 'snapshots.heads');
  await mkdir(path);
  const cache = await HeadCache.open(path);
  expect(cache.get('a', 1)).toBeUndefined();
  cache.add('a', 1, {});
  await cache.save();
});
