import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { MemoryStore } from '../storage/memory.ts';
import { base32, base64, decodeCanonical, encodeCanonical } from './codec.ts';
import { decodeCommits, encodeCommits } from './commit-index.ts';
import {
  canonical,
  IndependentReader,
  base32 as otherBase32,
  readCommits,
} from './independent-reader.fixtures.ts';
import { collect, testContext } from './repository.fixtures.ts';
import { Repository } from './repository.ts';
import { signingKey } from './signing.ts';

const load = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../docs/vectors/${name}.json`, import.meta.url), 'utf8'));
const objects = load('objects') as Record<string, string>;
const expected = load('expected');
const context = testContext();

const named = (prefix: string) => Object.keys(objects).filter((name) => name.startsWith(prefix));

test('encodings that have one answer', () => {
  const { value, text } = expected.canonical;
  expect(Buffer.from(encodeCanonical(value)).toString()).toBe(text);
  expect(canonical(value)).toBe(text);
  expect(decodeCanonical(Buffer.from(text), 'vector')).toEqual(value);
  for (const [input, output] of Object.entries(expected.base32)) {
    expect(base32(Buffer.from(input, 'hex'))).toBe(output);
    expect(otherBase32(Buffer.from(input, 'hex'))).toBe(output);
  }
  const rows = expected.commits.rows.map((row: Record<string, string>) => ({
    position: BigInt(row.position as string),
    time: BigInt(row.time as string),
    id: BigInt(row.id as string),
  }));
  expect(base64(encodeCommits(rows))).toBe(expected.commits.bytes);
  expect(decodeCommits(Buffer.from(expected.commits.bytes, 'base64'), 'vector')).toEqual(rows);
  const writer = signingKey(Buffer.from(expected.writerSeed, 'base64'));
  expect(writer.id).toBe(expected.writer);
});

test('a reader written from the document alone reads everything', () => {
  const reader = new IndependentReader(objects, expected.passphrase);
  expect(reader.root.adminKey).toBe(expected.adminKey);
  expect(reader.roster.recipients).toEqual([expected.recipient]);
  const { body, files } = reader.snapshot(named('snapshots/')[0] as string);
  expect(body.meta).toEqual(expected.snapshot.meta);
  expect(body.stats).toEqual(expected.snapshot.stats);
  expect(Object.fromEntries([...files].map(([path, bytes]) => [path, base64(bytes)]))).toEqual(
    expected.files,
  );
  const parts = named('logs/').map((name) => reader.logPart(name));
  const merged = parts.find(({ header }) => header.replaces !== null);
  expect(merged?.data.toString()).toBe(expected.log);
  const small = parts.filter(({ header }) => header.replaces === null);
  small.sort((a, b) => a.header.sequence - b.header.sequence);
  expect(Buffer.concat(small.map(({ data }) => data)).toString()).toBe(expected.log);
  expect(readCommits(merged?.commits as Buffer)).toEqual(
    expected.commits.rows.map((row: Record<string, string>) => [row.position, row.time, row.id]),
  );
});

test('Holdfast reads the same', async () => {
  const store = new MemoryStore();
  for (const [name, text] of Object.entries(objects)) await store.put(name, [Buffer.from(text, 'base64')]);
  const repository = await Repository.open(store, null, context);
  expect(repository.id).toBe(expected.repository);
  const unlock = { passphrase: expected.passphrase };
  expect((await repository.verify({ depth: 'content', unlock }, context)).problems).toEqual([]);
  const reader = await repository.reader(unlock, context);
  const [header] = await repository.snapshots('db', context.signal, []);
  const snapshot = await reader.openSnapshot(header as never, context.signal);
  const files: Record<string, string> = {};
  for await (const entry of snapshot.entries(context.signal)) {
    if (entry.type === 'file')
      files[entry.path] = base64(await reader.readEntry(snapshot, entry, context.signal));
  }
  expect(files).toEqual(expected.files);
  const [part, ...more] = await repository.logParts('db', context.signal, []);
  expect(more).toEqual([]);
  const content = await reader.openPart(part as never, context.signal);
  expect((await collect(content.data())).toString()).toBe(expected.log);
});
