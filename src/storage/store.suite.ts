/** What every store must do, whatever it is made of. Run by `store.it.test.ts` against each kind. */
import { createHash, randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ErrorCode } from '../core/errors.ts';
import type { ObjectStore } from './store.ts';

export interface StoreUnderTest {
  /** Two independent handles on one empty store, as two processes would have. */
  readonly handles: readonly [ObjectStore, ObjectStore];
  readonly cleanup: () => Promise<void>;
}

const text = (value: string) => [Buffer.from(value)];
const code = (expected: ErrorCode) => expect.objectContaining({ code: expected });

/** Awkward for anything that sorts by folder, by locale or by length; sorted by bytes. */
const trickyNames = [
  'A',
  'Z/a',
  '_',
  'a-b',
  'a-c/d',
  'a.b',
  'a.c/d',
  'a/-',
  'a/b',
  'a/b-',
  'a/b.c',
  'a/b0/x',
  'a/b1',
  'a0',
  'aa',
  'packs/0a/1',
  'packs/0a/2',
  'packs/0b/1',
  'packs/ff/0',
  'packs0',
  'tmp0',
  'tmpx/1',
  'z.',
];

async function names(listing: AsyncIterable<{ readonly name: string }>): Promise<string[]> {
  const found: string[] = [];
  for await (const object of listing) found.push(object.name);
  return found;
}

/** Runs the suite against the stores that `open` makes, each test against an empty one. */
export function describeStore(kind: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${kind} is a store`, () => {
    let under: StoreUnderTest;
    let store: ObjectStore;
    let other: ObjectStore;
    beforeEach(async () => {
      under = await open();
      [store, other] = under.handles;
    });
    afterEach(async () => {
      await Promise.all(under.handles.map((handle) => handle.close()));
      await under.cleanup();
    });
    describePut(() => [store, other]);
    describeGet(() => [store, other]);
    describe('with many objects', () => describeList(() => [store, other]));
    describeRest(() => [store, other]);
  });
}

type Handles = () => readonly [ObjectStore, ObjectStore];

function describePut(handles: Handles): void {
  it('creates once, then says that it exists, with one time of its own clock', async () => {
    const [store, other] = handles();
    const first = await store.put('a/b', text('content'));
    const again = await other.put('a/b', text('content'));
    expect([first.outcome, again.outcome]).toEqual(['created', 'exists']);
    expect(again.storedAt).toBe(first.storedAt);
    expect((await store.head('a/b'))?.storedAt).toBe(first.storedAt);
    expect(Number.isInteger(first.storedAt)).toBe(true);
  });

  it('never overwrites: other bytes, shorter or longer ones are a conflict', async () => {
    const [store, other] = handles();
    await store.put('a', text('content'));
    for (const different of ['Content', 'contenT', 'conten', 'content!', '']) {
      await expect(other.put('a', text(different))).rejects.toEqual(code('storage.conflict'));
    }
    expect(Buffer.from(await store.get('a')).toString()).toBe('content');
  });

  it('lets exactly one of many writers of a name create it', async () => {
    const [store, other] = handles();
    for (let round = 0; round < 10; round += 1) {
      const puts = Array.from({ length: 8 }, (_, i) =>
        (i % 2 ? store : other).put(`race/${round}`, text('same')),
      );
      const outcomes = (await Promise.all(puts)).map((result) => result.outcome);
      expect(outcomes.filter((outcome) => outcome === 'created')).toHaveLength(1);
    }
  });

  it('lets exactly one of many writers of different bytes win', async () => {
    const [store, other] = handles();
    const puts = Array.from({ length: 8 }, (_, i) => (i % 2 ? store : other).put('race', text(`bytes ${i}`)));
    const settled = await Promise.allSettled(puts);
    const winners = settled.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []));
    expect(winners).toHaveLength(1);
    expect(Buffer.from(await store.get('race')).toString()).toBe(`bytes ${winners[0]}`);
  });

  it('keeps an empty object', async () => {
    const [store, other] = handles();
    await store.put('empty', []);
    expect((await other.put('empty', [new Uint8Array(0)])).outcome).toBe('exists');
    expect(await store.get('empty')).toHaveLength(0);
    expect((await store.head('empty'))?.bytes).toBe(0);
  });

  it('joins 20 MiB in thousands of uneven buffers in order', async () => {
    const [store, other] = handles();
    const whole = randomBytes(20 << 20);
    const pieces: Uint8Array[] = [new Uint8Array(0)];
    let from = 0;
    for (let i = 0; from < whole.length; i += 1) {
      const bytes = i === 7 ? 9 << 20 : (i * 7919) % 9000;
      pieces.push(whole.subarray(from, from + bytes));
      from += bytes;
    }
    expect((await store.put('big', pieces)).outcome).toBe('created');
    expect(
      createHash('sha256')
        .update(await other.get('big'))
        .digest('hex'),
    ).toBe(createHash('sha256').update(whole).digest('hex'));
    expect((await other.put('big', [whole])).outcome).toBe('exists');
  });

  it('does not change the buffers nor care for what becomes of them afterwards', async () => {
    const [store] = handles();
    const buffer = Buffer.from('before');
    await store.put('a', [buffer]);
    expect(buffer.toString()).toBe('before');
    buffer.fill(0);
    expect(Buffer.from(await store.get('a')).toString()).toBe('before');
  });

  it.each([
    '',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    '../a',
    'a/../b',
    'a/./b',
    'tmp',
    'tmp/a',
    'a b',
    'ä',
    'a\0',
    'a\\b',
    `${'x'.repeat(256)}`,
    `${'x/'.repeat(600)}x`,
  ])('refuses the name %j for everything', async (name) => {
    const [store] = handles();
    await expect(store.put(name, text('x'))).rejects.toEqual(code('storage.bad-name'));
    await expect(store.get(name)).rejects.toEqual(code('storage.bad-name'));
    await expect(store.head(name)).rejects.toEqual(code('storage.bad-name'));
    await expect(store.delete(name)).rejects.toEqual(code('storage.bad-name'));
    expect(await names(store.list(''))).toEqual([]);
  });
}

function describeGet(handles: Handles): void {
  it.each([
    [{}, '0123456789'],
    [{ offset: 3 }, '3456789'],
    [{ offset: 3, length: 4 }, '3456'],
    [{ length: 4 }, '0123'],
    [{ offset: -3 }, '789'],
    [{ offset: -3, length: 2 }, '78'],
    [{ offset: -30 }, '0123456789'],
    [{ offset: -30, length: 2 }, '01'],
    [{ offset: 8, length: 100 }, '89'],
    [{ offset: 10 }, ''],
    [{ offset: 100, length: 5 }, ''],
    [{ offset: 2, length: 0 }, ''],
  ])('gives the range %j', async (range, expected) => {
    const [store, other] = handles();
    await store.put('digits', text('0123456789'));
    expect(Buffer.from(await other.get('digits', range)).toString()).toBe(expected);
  });

  it('rejects ranges that cannot be meant', async () => {
    const [store] = handles();
    await store.put('digits', text('0123456789'));
    for (const range of [{ offset: 0.5 }, { length: -1 }, { offset: Number.NaN }, { length: 1.5 }]) {
      await expect(store.get('digits', range)).rejects.toThrow(RangeError);
    }
  });

  it('gives bytes that their reader may change', async () => {
    const [store] = handles();
    await store.put('a', text('abc'));
    (await store.get('a')).fill(0);
    expect(Buffer.from(await store.get('a')).toString()).toBe('abc');
  });

  it('says what is not there', async () => {
    const [store] = handles();
    await store.put('a/b/c', text('x'));
    for (const name of ['nothing', 'a', 'a/b', 'a/b/d', 'a/b/c/d', 'x/y']) {
      await expect(store.get(name)).rejects.toEqual(code('storage.not-found'));
      expect(await store.head(name)).toBeUndefined();
    }
  });
}

function describeList(handles: Handles): void {
  beforeEach(async () => {
    const [store] = handles();
    const shuffled = [...trickyNames].sort((a, b) =>
      createHash('md5').update(a).digest().compare(createHash('md5').update(b).digest()),
    );
    await Promise.all(shuffled.map((name) => store.put(`x/${name}`, text(name))));
    await store.put('w', text('w'));
    await store.put('y', text('y'));
  });
  const all = ['w', ...trickyNames.map((name) => `x/${name}`), 'y'];
  const oracle = (prefix: string, after = '') =>
    all
      .filter((name) => name.startsWith(prefix) && name > after)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));

  it('lists everything in byte order of full names', async () => {
    expect(await names(handles()[1].list(''))).toEqual(oracle(''));
  });

  it('lists by any prefix and after any string', async () => {
    const [store] = handles();
    const prefixes = [
      'x',
      'x/',
      'x/a',
      'x/a/',
      'x/a/b',
      'x/a-',
      'x/packs/0',
      'x/packs/0a/',
      'x/p',
      'x/zz',
      'x//',
      '/',
      '../',
      'x/../',
      'tmp/',
      'tm',
      'w/',
      '\0',
    ];
    const afters = [
      '',
      'x',
      'x/',
      'x/a',
      'x/a-b',
      'x/a-b/c',
      'x/a/',
      'x/a/b',
      'x/a/zzz',
      'x/packs',
      'x/packs/0a/1',
      'x/packs/0b',
      'x/zz',
      'zzz',
      '0',
    ];
    for (const prefix of ['', ...prefixes]) {
      for (const after of afters) {
        expect([prefix, after, await names(store.list(prefix, { after }))]).toEqual([
          prefix,
          after,
          oracle(prefix, after),
        ]);
      }
    }
  });

  it('tells sizes and times as head does', async () => {
    const [store, other] = handles();
    for await (const object of store.list('x/a')) expect(object).toEqual(await other.head(object.name));
  });

  it('can be left early', async () => {
    const [store] = handles();
    for await (const object of store.list('')) {
      expect(object.name).toBe('w');
      break;
    }
    expect(await names(store.list('y'))).toEqual(['y']);
  });

  it('stops when aborted on the way', async () => {
    const [store] = handles();
    const abort = new AbortController();
    const reason = new Error('enough');
    const listing = async () => {
      for await (const _ of store.list('', { signal: abort.signal })) abort.abort(reason);
    };
    await expect(listing()).rejects.toBe(reason);
  });
}

function describeRest(handles: Handles): void {
  it('deletes, also what is gone already, and can create it anew', async () => {
    const [store, other] = handles();
    await store.put('a/b', text('1'));
    await other.delete('a/b');
    await store.delete('a/b');
    await store.delete('never/was');
    await store.delete('a');
    expect(await store.head('a/b')).toBeUndefined();
    expect(await names(store.list(''))).toEqual([]);
    expect((await store.put('a/b', text('2'))).outcome).toBe('created');
  });

  it('does nothing once aborted, and says why', async () => {
    const [store] = handles();
    await store.put('a', text('a'));
    const reason = new Error('told to stop');
    const signal = AbortSignal.abort(reason);
    await expect(store.put('b', text('b'), { signal })).rejects.toBe(reason);
    await expect(store.get('a', { signal })).rejects.toBe(reason);
    await expect(store.head('a', { signal })).rejects.toBe(reason);
    await expect(store.delete('a', { signal })).rejects.toBe(reason);
    await expect(names(store.list('', { signal }))).rejects.toBe(reason);
    expect(await names(store.list(''))).toEqual(['a']);
  });

  it('leaves nothing partial when a put is aborted at any moment', async () => {
    const [store, other] = handles();
    const content = Array.from({ length: 64 }, (_, i) => Buffer.alloc(256 << 10, i));
    const sizes = new Set<number>();
    for (let round = 0; round < 12; round += 1) {
      const abort = new AbortController();
      const reason = new Error('stop');
      const put = store.put(`p/${round}`, content, { signal: abort.signal });
      setTimeout(() => abort.abort(reason), round);
      const [settled] = await Promise.allSettled([put]);
      if (settled?.status === 'rejected') expect(settled.reason).toBe(reason);
      // Whichever way it went: the whole may be put again.
      expect((await other.put(`p/${round}`, content)).outcome).toMatch(/created|exists/);
      sizes.add((await store.head(`p/${round}`))?.bytes ?? -1);
    }
    expect([...sizes]).toEqual([16 << 20]);
  });

  it('tries whether it can be written without storing anything', async () => {
    const [store] = handles();
    expect(await store.checkWritable()).toEqual([]);
    await store.put('a', text('a'));
    expect(await store.checkWritable()).toEqual([]);
    expect(await names(store.list(''))).toEqual(['a']);
    const reason = new Error('told to stop');
    await expect(store.checkWritable({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('closes more than once', async () => {
    const [store] = handles();
    await store.close();
    await store.close();
  });
}
