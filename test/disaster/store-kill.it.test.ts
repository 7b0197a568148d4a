/** Processes that write into one local store while they are killed, or against one another. */
import { createHash, randomInt } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { LocalStore } from '../../src/storage/local.ts';
import { startWriter } from './store-process.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-kill-'));
});
afterEach(() => rm(root, { recursive: true }));

it('keeps every acknowledged object and shows nothing partial, whenever its writers are killed', async () => {
  const acknowledged = new Set<string>();
  for (let round = 0; round < 20; round += 1) {
    const writing = startWriter([root, 'endless']);
    await writing.said('ACK');
    await new Promise((resolve) => setTimeout(resolve, randomInt(60)));
    writing.child.kill('SIGKILL');
    await writing.ended;
    for (const line of writing.lines())
      if (line.startsWith('ACK')) acknowledged.add(line.split(' ')[1] ?? '');
    expect(writing.lines().filter((line) => line.startsWith('ERROR'))).toEqual([]);
  }
  // Looked at without the store's own code.
  const found = (await readdir(join(root, 'packs'), { recursive: true })).filter((path) =>
    path.includes('/'),
  );
  for (const path of found) {
    const digest = createHash('sha256')
      .update(await readFile(join(root, 'packs', path)))
      .digest('hex');
    expect(path).toBe(`${digest.slice(0, 2)}/${digest}`);
  }
  const visible = new Set(found.map((path) => `packs/${path}`));
  expect([...acknowledged].filter((name) => !visible.has(name))).toEqual([]);
  expect(acknowledged.size).toBeGreaterThan(40);
  const store = await LocalStore.open(root);
  const listed: string[] = [];
  for await (const { name } of store.list('')) listed.push(name);
  expect(listed).toEqual([...visible].sort());
});

it.each([
  ['the same bytes', ['same', 'same', 'same']],
  ['different bytes', ['one', 'two', 'three']],
])('lets exactly one of three processes create each name, with %s', async (_, texts) => {
  const count = 150;
  const writers = texts.map((text) => startWriter([root, 'race', String(count), text]));
  await Promise.all(writers.map((writing) => writing.said('READY')));
  for (const { child } of writers) child.stdin?.write('go\n');
  await Promise.all(writers.map((writing) => writing.ended));
  const isSame = new Set(texts).size === 1;
  for (let i = 0; i < count; i += 1) {
    const answers = writers.map(
      (writing) => writing.lines().find((line) => line.split(' ')[1] === `race/${i}`) ?? 'none',
    );
    const creators = texts.filter((_text, who) => answers[who] === `ACK race/${i} created`);
    expect(creators).toHaveLength(1);
    const loser = isSame ? `ACK race/${i} exists` : `ERROR race/${i} storage.conflict 5`;
    expect(answers.filter((answer) => answer === loser)).toHaveLength(2);
    expect(await readFile(join(root, 'race', String(i)), 'utf8')).toBe(creators[0]);
  }
  expect(await readdir(join(root, 'tmp'))).toEqual([]);
});
