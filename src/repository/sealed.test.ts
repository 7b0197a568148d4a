import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isHoldfastError } from '../core/errors.ts';
import { decodeCanonical, encodeCanonical } from './codec.ts';
import { decodeCommits, encodeCommits } from './commit-index.ts';
import type { Entry, Json, JsonObject } from './contract.ts';
import { openDataKey, wrapKeys } from './keys.ts';
import { isSafePath, type ListedEntry, ListingWriter, readListing } from './listing.ts';
import { decodePackList, encodePackList } from './pack-list.ts';
import { decodeIdentity, generateIdentity, openSecret, sealSecret } from './recipient.ts';
import { noise } from './repository.fixtures.ts';
import { decodeRoster, encodeRoster, rosterWriter } from './roster.ts';
import { openSection, SectionWriter, sectionKey } from './section.ts';
import { checkSection, checkSignature, decodeHead, encodeSigned } from './signed-object.ts';
import { generateSeed, signingKey, verifyingKey } from './signing.ts';

/** Runs of each property; the campaign runs more. */
const numRuns = 60;

/** The error of damage, or what came back. Anything else that is thrown is a defect. */
function orDamage<T>(work: () => T): T | 'damage' {
  try {
    return work();
  } catch (error) {
    if (isHoldfastError(error, 'repository.damaged')) return 'damage';
    throw error;
  }
}

const json = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger().map((n) => (Object.is(n, -0) ? 0 : n)),
    fc.string({ unit: 'binary' }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 4 }),
  ),
})).value;
const object = fc.dictionary(fc.string(), json, {
  maxKeys: 5,
  noNullPrototype: true,
}) as fc.Arbitrary<JsonObject>;

test('canonical JSON: one spelling for a value, every other refused', () => {
  fc.assert(
    fc.property(object, (value) => {
      const bytes = encodeCanonical(value);
      expect(encodeCanonical(decodeCanonical(bytes, 'x'))).toEqual(bytes);
      const spaced = Buffer.from(JSON.stringify(JSON.parse(Buffer.from(bytes).toString()), null, 1));
      if (!spaced.equals(bytes)) expect(orDamage(() => decodeCanonical(spaced, 'x'))).toBe('damage');
    }),
    { numRuns },
  );
  const refused = [
    '{"b":1,"a":2}',
    '{"a":1,"a":1}',
    '{"a":1.0}',
    '{"a":1e3}',
    '{"a":-0}',
    '{"a":9007199254740992}',
    '{"a":"\\u0061"}',
    '[1]',
    'null',
    '',
    '{"a":1} ',
    '\ufeff{}',
    '{"a":"\\/"}',
  ];
  for (const text of refused)
    expect(
      orDamage(() => decodeCanonical(Buffer.from(text), 'x')),
      text,
    ).toBe('damage');
  // Bytes that are no UTF-8 would be read as U+FFFD, which has a spelling of its own.
  expect(orDamage(() => decodeCanonical(Buffer.from('7b2261223a22ff227d', 'hex'), 'x'))).toBe('damage');
  expect(() => encodeCanonical({ a: 0.5 })).toThrow(TypeError);
});

test('commit index: round trip, and garbage is damage', () => {
  const int64 = fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n - 1n });
  const commit = fc.record({ position: int64, time: int64, id: int64 });
  fc.assert(
    fc.property(fc.array(commit, { maxLength: 50 }), (commits) => {
      expect(decodeCommits(encodeCommits(commits), 'x')).toEqual(commits);
    }),
    { numRuns },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      orDamage(() => decodeCommits(bytes, 'x'));
    }),
    { numRuns: 500 },
  );
  expect(orDamage(() => decodeCommits(Buffer.from('ffffffff00', 'hex'), 'x'))).toBe('damage');
  const many = Array.from({ length: 20_000 }, (_, i) => ({
    position: BigInt(i) * 64n,
    time: BigInt(i),
    id: 5n,
  }));
  expect(decodeCommits(encodeCommits(many), 'x')).toEqual(many);
});

async function entriesOf(chunks: readonly Uint8Array[]): Promise<Entry[]> {
  const entries: Entry[] = [];
  async function* source() {
    yield* chunks;
  }
  for await (const entry of readListing(source(), 'listing')) entries.push(entry);
  return entries;
}

function listed(entries: readonly ListedEntry[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  const writer = new ListingWriter((chunk) => chunks.push(chunk));
  for (const entry of entries) writer.add(entry);
  writer.flush();
  return chunks;
}

test('listing: odd paths, holes and files of very many extents come back', async () => {
  const name = (n: number) => n.toString(16).padStart(64, '0');
  const extents = Array.from({ length: 50_000 }, (_, i) => ({
    length: 8192,
    pack: i % 9 === 0 ? null : name(i % 3000),
    frame: i % 9 === 0 ? 0 : i % 1024,
    offset: i % 9 === 0 ? 0 : (i % 128) * 8192,
  }));
  const huge = { path: 'base/1', type: 'file' as const, mode: 0o600, size: 50_000 * 8192, extents };
  const odd = ['a b', 'é\n"\\', '__proto__', '-1', '.hidden', 'x'.repeat(4000), '\ud800lone'].map((path) => ({
    path,
    type: 'file' as const,
    mode: 0o644,
    size: 0,
    extents: [],
  }));
  const chunks = listed([...odd, huge, ...odd]);
  expect(chunks.length).toBeGreaterThan(1);
  for (const chunk of chunks) expect(chunk.length).toBeLessThanOrEqual(1 << 20);
  expect(await entriesOf(chunks)).toEqual([...odd, huge, ...odd]);
});

test('listing: unsafe paths and malformed lines are damage', async () => {
  for (const path of ['/etc', 'a/../b', '..', '.', 'a//b', 'a/', '', 'a\0b', 'a/./b']) {
    expect(isSafePath(path), path).toBe(false);
    const line = JSON.stringify({ path, type: 'file', mode: 0, size: 0 });
    await expect(entriesOf([Buffer.from(`{"packs":[]}\n${line}\n`)])).rejects.toMatchObject({
      code: 'repository.damaged',
    });
  }
  const good = { path: 'a', type: 'file', mode: 0, size: 5 };
  const lines = [
    { ...good, x: [5, 0, 0, 0] },
    { ...good, x: [4, -1, 0, 0] },
    { ...good, x: [5, -1, 0] },
    { ...good, x: [-5, -1, 0, 0, 10, -1, 0, 0] },
    { ...good, x: 'text' },
    { ...good, size: -1 },
    { ...good, type: 'device' },
    { path: 'l', type: 'symlink', mode: 0, size: 0 },
    { more: true, x: [5, -1, 0, 0] },
    null,
    [],
    7,
  ];
  for (const line of lines) {
    const chunk = Buffer.from(`{"packs":[]}\n${JSON.stringify(line)}\n`);
    await expect(entriesOf([chunk]), JSON.stringify(line)).rejects.toMatchObject({
      code: 'repository.damaged',
    });
  }
  for (const head of ['', 'x', 'null', '{}', '{"packs":7}', '{"packs":["short"]}']) {
    await expect(entriesOf([Buffer.from(`${head}\n`)]), head).rejects.toMatchObject({
      code: 'repository.damaged',
    });
  }
});

function section(frames: readonly Uint8Array[], secret = noise(32, 'secret'), header = noise(32, 'header')) {
  const out: Uint8Array[] = [];
  const key = sectionKey(secret, header);
  const writer = new SectionWriter(key, 1, (bytes) => out.push(bytes));
  for (const frame of frames) writer.frame(frame);
  writer.end(new Map([[1, Buffer.from('facts')]]));
  return { key, bytes: Buffer.concat(out) };
}

function readAll(key: ReturnType<typeof sectionKey>, bytes: Uint8Array): string {
  const opened = openSection(key, bytes, 'x');
  return (
    opened.footer.frames.map((_, i) => opened.frame(i).toString('latin1')).join('|') +
    [...opened.footer.extensions.keys()]
  );
}

test('section: every flipped bit and every cut is damage', () => {
  const { key, bytes } = section([noise(30), Buffer.alloc(300), Buffer.alloc(0)]);
  expect(readAll(key, bytes).length).toBeGreaterThan(300);
  for (let at = 0; at < bytes.length; at++) {
    for (const bit of [1, 128]) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] as number) ^ bit;
      expect(
        orDamage(() => readAll(key, flipped)),
        `byte ${at}`,
      ).toBe('damage');
    }
    expect(orDamage(() => readAll(key, bytes.subarray(0, at)))).toBe('damage');
  }
  expect(orDamage(() => readAll(key, Buffer.concat([bytes, Buffer.alloc(16)])))).toBe('damage');
});

test('section: frames fit only their own place under their own header', () => {
  const one = section([noise(50, 'a'), noise(50, 'b')]);
  const size = 50 + 16;
  const swapped = Buffer.concat([
    one.bytes.subarray(size, 2 * size),
    one.bytes.subarray(0, size),
    one.bytes.subarray(2 * size),
  ]);
  expect(orDamage(() => readAll(one.key, swapped))).toBe('damage');
  const other = section([noise(50, 'a'), noise(50, 'b')], noise(32, 'secret'), noise(32, 'other header'));
  expect(orDamage(() => readAll(one.key, other.bytes))).toBe('damage');
  const grafted = Buffer.concat([other.bytes.subarray(0, size), one.bytes.subarray(size)]);
  expect(orDamage(() => readAll(one.key, grafted))).toBe('damage');
});

test('signed object: every flipped bit is found without a key', () => {
  const key = signingKey(generateSeed());
  const core = { format: 1, type: 'snapshot', id: 'x' };
  const { content } = encodeSigned('snapshot', core, [noise(40)], key);
  const bytes = Buffer.concat(content);
  const whole = (object: Uint8Array) => {
    const head = decodeHead('snapshot', object, 'x');
    checkSignature('snapshot', head, verifyingKey(key.publicKey), 'x');
    checkSection(head, object.subarray(head.sectionStart), 'x');
    return 'sound';
  };
  expect(whole(bytes)).toBe('sound');
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
    expect(
      orDamage(() => whole(flipped)),
      `byte ${at}`,
    ).toBe('damage');
  }
  expect(orDamage(() => decodeHead('log-part', bytes, 'x'))).toBe('damage');
});

test('roster: every flipped bit, a foreign writer, an unknown one and one without the right are refused', () => {
  const admin = signingKey(generateSeed());
  const host = signingKey(generateSeed());
  const id = 'a'.repeat(16);
  const recipients = [decodeIdentity(generateIdentity()).recipient];
  const writer = { ...rosterWriter(host, 'h', 1), sources: ['db'] };
  const roster = { number: 1, previous: null, epoch: 1, recipients, writers: [writer] };
  const bytes = Buffer.from(encodeRoster(id, roster, admin));
  const loaded = decodeRoster(bytes, id, admin.publicKey, 'r');
  loaded.keyFor(host.id, 'db', 'x');
  expect(orDamage(() => loaded.keyFor(host.id, 'web', 'x'))).toBe('damage');
  expect(orDamage(() => loaded.keyFor(admin.id, 'db', 'x'))).toBe('damage');
  expect(orDamage(() => decodeRoster(bytes, 'b'.repeat(16), admin.publicKey, 'r'))).toBe('damage');
  expect(orDamage(() => decodeRoster(bytes, id, host.publicKey, 'r'))).toBe('damage');
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 7));
    expect(
      orDamage(() => decodeRoster(flipped, id, admin.publicKey, 'r')),
      `byte ${at}`,
    ).toBe('damage');
  }
});

test('pack list: round trip, every flipped bit found', () => {
  const packs = [1, 2].map((n) => ({
    digest: noise(32, `d${n}`).toString('hex'),
    headerDigest: noise(32, `h${n}`).toString('hex'),
    bytes: n,
  }));
  const { digest, content } = encodePackList(packs);
  expect(decodePackList(content, digest)).toEqual(packs);
  for (let at = 0; at < content.length; at++) {
    const flipped = Buffer.from(content);
    flipped[at] = (flipped[at] as number) ^ 4;
    expect(orDamage(() => decodePackList(flipped, digest))).toBe('damage');
  }
});

test('a sealed secret opens for its recipients only', () => {
  const identities = [1, 2, 3].map(() => decodeIdentity(generateIdentity()));
  const [one, two, three] = identities as [
    (typeof identities)[0],
    (typeof identities)[0],
    (typeof identities)[0],
  ];
  const secret = noise(32, 's');
  const stanzas = sealSecret(secret, [one.publicKey, two.publicKey]);
  expect(openSecret(stanzas, one)?.equals(secret)).toBe(true);
  expect(openSecret(stanzas, two)?.equals(secret)).toBe(true);
  expect(openSecret(stanzas, three)).toBeUndefined();
});

function hasAge(): boolean {
  try {
    execFileSync('age', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

test.skipIf(!hasAge())('the age tool opens our keys, and we open what it wrapped', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-age-'));
  try {
    const identity = generateIdentity();
    const own = generateIdentity();
    const { recipient } = decodeIdentity(own);
    writeFileSync(join(folder, 'own'), `${own}\n`, { mode: 0o600 });
    const wrapped = await wrapKeys(identity, generateSeed(), { label: 'tool', recipients: [recipient] });
    const data = wrapped.find(({ opens }) => opens === 'data');
    writeFileSync(join(folder, 'key.age'), data?.content as Uint8Array);
    const opened = execFileSync('age', ['-d', '-i', join(folder, 'own'), join(folder, 'key.age')]);
    expect(opened.toString()).toBe(`${identity}\n`);
    const theirs = execFileSync('age', ['-r', recipient], { input: `${identity}\n` });
    const key = { name: 'keys/tool-aaaaaaaa.data.age', opens: 'data' as const, content: theirs };
    expect(await openDataKey([key], { identity: own }, (secret) => secret === identity)).toBe(identity);
    await expect(openDataKey([key], { identity: generateIdentity() }, () => true)).rejects.toMatchObject({
      code: 'repository.wrong-key',
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
