import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Fault, type MemoryCall, MemoryStore, seededFaults } from './memory.ts';
import { type ResilienceOptions, resilient, type WaitInfo } from './resilient.ts';
import { VirtualClock } from './virtual-clock.ts';

const content = [Buffer.from('content')];
const code = (expected: string) => expect.objectContaining({ code: expected });

/** A wrapped store whose calls meet `faults` one after the other, and then none. */
function troubled(faults: readonly Fault[], options: ResilienceOptions = {}) {
  const clock = new VirtualClock();
  const calls: MemoryCall[] = [];
  const memory = new MemoryStore({
    clock,
    faults: (call) => {
      calls.push(call);
      return faults[call.index];
    },
  });
  const waits: WaitInfo[] = [];
  const store = resilient(memory, {
    clock,
    random: () => 0.5,
    onWait: (info) => waits.push(info),
    ...options,
  });
  return { clock, memory, calls, waits, store };
}

describe('retries', () => {
  it('outlast failures, saying what waits and since when', async () => {
    const { store, waits, clock } = troubled([{ kind: 'fail' }, { kind: 'tear' }, { kind: 'fail' }]);
    const start = clock.now();
    expect(await store.put('a', content)).toMatchObject({ outcome: 'created' });
    expect(
      waits.map(({ operation, name, attempts, delayMs, since }) => [
        operation,
        name,
        attempts,
        delayMs,
        since,
      ]),
    ).toEqual([
      ['put', 'a', 1, 50, start],
      ['put', 'a', 2, 100, start],
      ['put', 'a', 3, 200, start],
    ]);
    expect(clock.now() - start).toBe(350);
  });

  it('take "exists" after a lost answer as success, and mark it', async () => {
    const { store } = troubled([{ kind: 'lose-answer' }]);
    expect(await store.put('a', content)).toMatchObject({ outcome: 'exists', afterFailure: true });
    const again = await store.put('a', content);
    expect(again).not.toHaveProperty('afterFailure');
  });

  it.each([
    'storage.conflict',
    'storage.denied',
    'storage.full',
    'storage.failed',
    'storage.not-found',
    'storage.no-links',
    'storage.read-only',
  ] as const)('are not made for %s', async (fault) => {
    const { store, calls } = troubled([{ kind: 'fail', code: fault }]);
    await expect(store.put('a', content)).rejects.toEqual(code(fault));
    expect(calls).toHaveLength(1);
  });

  it('wait for space when asked to', async () => {
    const { store } = troubled([{ kind: 'fail', code: 'storage.full' }], { retryFull: true });
    expect(await store.put('a', content)).toMatchObject({ outcome: 'created' });
  });

  it('end at the total deadline with the last failure and what to do', async () => {
    const clock = new VirtualClock();
    const memory = new MemoryStore({ clock, faults: () => ({ kind: 'fail' }) });
    const store = resilient(memory, { clock, totalMs: 30_000 });
    await expect(store.get('a')).rejects.toMatchObject({
      code: 'storage.unreachable',
      message: expect.stringMatching(/Given up after \d+ attempts in \d+ s\./),
    });
    expect(clock.monotonic()).toBeLessThanOrEqual(30_000);
  });

  it('back off to ten seconds and go on for ever without a total deadline, until aborted', async () => {
    const clock = new VirtualClock();
    const abort = new AbortController();
    const reason = new Error('enough');
    const waits: number[] = [];
    const memory = new MemoryStore({ clock, faults: () => ({ kind: 'fail' }) });
    const onWait = ({ delayMs, attempts }: WaitInfo) => {
      waits.push(delayMs);
      if (attempts === 2000) abort.abort(reason);
    };
    const store = resilient(memory, {
      clock,
      totalMs: Number.POSITIVE_INFINITY,
      random: () => 0.999,
      onWait,
    });
    await expect(store.put('a', content, { signal: abort.signal })).rejects.toBe(reason);
    expect(Math.max(...waits)).toBe(9990);
  });

  it('tell when the waiting is over', async () => {
    const recovered: unknown[] = [];
    const { store, clock } = troubled([{ kind: 'fail' }], { onRecovered: (info) => recovered.push(info) });
    const since = clock.now();
    await store.put('a', content);
    await store.put('b', content);
    expect(recovered).toEqual([{ operation: 'put', since }]);
  });

  it('continue a list where it broke off', async () => {
    const clock = new VirtualClock();
    const memory = new MemoryStore({ clock });
    const names = Array.from({ length: 1000 }, (_, i) => `n/${String(i).padStart(4, '0')}`);
    for (const name of names) await memory.put(name, content);
    // Breaks off within pages, as a connection does, which the memory store itself never does.
    let opened = 0;
    const breaking: MemoryStore = Object.create(memory, {
      list: {
        value: async function* (prefix: string, options: { after?: string }) {
          opened += 1;
          let given = 0;
          for await (const object of memory.list(prefix, options)) {
            if (opened < 4 && given++ === 300)
              await new MemoryStore({ faults: () => ({ kind: 'fail' }) }).head('x');
            yield object;
          }
        },
      },
    });
    const listed: string[] = [];
    for await (const { name } of resilient(breaking, { clock }).list('n/')) listed.push(name);
    expect(listed).toEqual(names);
    expect(opened).toBe(4);
  });
});

describe('deadlines', () => {
  it('cut off an attempt that hangs and try again', async () => {
    const { store, clock, waits } = troubled([{ kind: 'hang' }], { attemptMs: 5_000 });
    await store.put('a', content);
    expect(waits.map(({ error }) => error.code)).toEqual(['storage.timeout']);
    expect(clock.monotonic()).toBe(5_050);
  });

  it('hold even where the store does not obey its signal, also for lists', async () => {
    const clock = new VirtualClock();
    const never = new Promise<never>(() => undefined);
    const deaf = Object.create(new MemoryStore(), {
      get: { value: () => never },
      list: { value: () => ({ [Symbol.asyncIterator]: () => ({ next: () => never, return: () => never }) }) },
    });
    const store = resilient(deaf, { clock, attemptMs: 1_000, totalMs: 2_500 });
    await expect(store.get('a')).rejects.toEqual(code('storage.timeout'));
    await expect(names(store.list(''))).rejects.toEqual(code('storage.timeout'));
    const signal = AbortSignal.timeout(20);
    await expect(resilient(deaf).get('a', { signal })).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});

async function names(listing: AsyncIterable<{ readonly name: string }>): Promise<string[]> {
  const found: string[] = [];
  for await (const object of listing) found.push(object.name);
  return found;
}

describe('limits', () => {
  it('keep the number of calls under way, in order, and free the slots of failed ones', async () => {
    const clock = new VirtualClock();
    let active = 0;
    let most = 0;
    const order: string[] = [];
    const memory = new MemoryStore({ clock });
    const counting = Object.create(memory, {
      head: {
        value: async (name: string) => {
          most = Math.max(most, ++active);
          order.push(name);
          await clock.sleep(10);
          active -= 1;
          if (name === 'h3') return memory.get(name);
          return undefined;
        },
      },
    });
    const store = resilient(counting, { clock, concurrency: 3 });
    const names = Array.from({ length: 20 }, (_, i) => `h${i}`);
    const settled = await Promise.allSettled(names.map((name) => store.head(name)));
    expect(settled.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    expect(most).toBe(3);
    expect(order).toEqual(names);
  });

  it('let go of who is aborted while waiting for a slot', async () => {
    const { store } = troubled([{ kind: 'hang' }], { concurrency: 1, attemptMs: 1_000 });
    const abort = new AbortController();
    const first = store.put('a', content);
    const second = store.put('b', content, { signal: abort.signal });
    const third = store.put('c', content);
    const reason = new Error('stop');
    abort.abort(reason);
    await expect(second).rejects.toBe(reason);
    expect(await Promise.all([first, third])).toHaveLength(2);
    expect(await store.head('b')).toBeUndefined();
  });

  it('keep the bandwidth over many puts and gets', async () => {
    const clock = new VirtualClock();
    const store = resilient(new MemoryStore({ clock }), { clock, bytesPerSecond: 1_000 });
    const piece = [Buffer.alloc(500)];
    for (let i = 0; i < 20; i += 1) await store.put(`p/${i}`, piece);
    for (let i = 0; i < 20; i += 1) await store.get(`p/${i}`);
    await store.put('last', piece);
    // 20,000 bytes before the last one, of which a second's worth may burst.
    expect(clock.monotonic()).toBeGreaterThanOrEqual(18_500);
    expect(clock.monotonic()).toBeLessThanOrEqual(20_000);
  });

  it('do not count bandwidth and slots as the store’s silence', async () => {
    const clock = new VirtualClock();
    const options = { clock, bytesPerSecond: 10, concurrency: 1, attemptMs: 100, totalMs: 200 };
    const store = resilient(new MemoryStore({ clock }), options);
    const puts = Array.from({ length: 10 }, (_, i) => store.put(`p/${i}`, [Buffer.alloc(100, i)]));
    expect((await Promise.all(puts)).every(({ outcome }) => outcome === 'created')).toBe(true);
  });
});

type Step =
  | { readonly op: 'put'; readonly writer: 0 | 1; readonly name: number; readonly value: number }
  | { readonly op: 'get' | 'head'; readonly writer: 0 | 1; readonly name: number }
  | { readonly op: 'list'; readonly writer: 0 | 1 };

const writer = fc.constantFrom(0 as const, 1 as const);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ op: fc.constant('put' as const), writer, name: fc.nat(7), value: fc.nat(2) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constantFrom('get' as const, 'head' as const), writer, name: fc.nat(7) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('list' as const), writer }) },
);

describe('against a model, under random faults and overlaps', () => {
  it('loses nothing acknowledged and overwrites nothing', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(fc.array(step, { maxLength: 6 }), { maxLength: 8 }),
        playAgainstModel,
      ),
      { numRuns: 150 },
    );
  });
});

/** Plays each batch of steps at once, and compares what was answered with the first value ever seen of a name. */
async function playAgainstModel(seed: number, batches: readonly (readonly Step[])[]): Promise<void> {
  const clock = new VirtualClock();
  const rates = { fail: 0.1, hang: 0.05, tear: 0.08, 'lose-answer': 0.1, late: 0.08, delay: 0.15 };
  const truth = new MemoryStore({ clock });
  const handles = [0, 1].map(
    (i) => new MemoryStore({ clock, sharing: truth, faults: seededFaults(seed * 2 + i, rates) }),
  );
  const options = { clock, attemptMs: 20_000, totalMs: 600_000, random: () => 0.5 };
  const stores = handles.map((handle) => resilient(handle, options));
  const seen = new Map<string, string>();
  const creators = new Map<string, number>();
  const observe = (name: string, value: string) => {
    if (!seen.has(name)) seen.set(name, value);
    expect(`${name}=${value}`).toBe(`${name}=${seen.get(name)}`);
  };
  const play = async (one: Step) => {
    const store = stores[one.writer]!;
    // Only what was acknowledged before this step began must be visible to it.
    const before = [...seen.keys()];
    if (one.op === 'list') {
      const listed: string[] = [];
      for await (const { name } of store.list('')) listed.push(name);
      expect(listed).toEqual([...new Set(listed)].sort());
      for (const name of before) expect(listed).toContain(name);
      return;
    }
    const name = `n/${one.name}`;
    if (one.op === 'put') {
      const value = 'v'.repeat(one.value);
      const { outcome } = await store.put(name, [Buffer.from(value)]);
      if (outcome === 'created') creators.set(name, (creators.get(name) ?? 0) + 1);
      observe(name, value);
    } else if (one.op === 'get') {
      observe(name, Buffer.from(await store.get(name)).toString());
    } else {
      const info = await store.head(name);
      if (info === undefined) expect(before).not.toContain(name);
      else observe(name, 'v'.repeat(info.bytes));
    }
  };
  const refusals = new Set([
    'storage.conflict',
    'storage.not-found',
    'storage.unreachable',
    'storage.timeout',
  ]);
  for (const batch of batches) {
    const settled = await Promise.allSettled(
      batch.map(async (one) => {
        const known = one.op === 'list' ? false : seen.has(`n/${one.name}`);
        try {
          await play(one);
        } catch (error) {
          if (!refusals.has((error as { code: string }).code)) throw error;
          // A missing object may be reported only where nobody had been told that it is there.
          if ((error as { code: string }).code === 'storage.not-found') expect(known).toBe(false);
        }
      }),
    );
    for (const result of settled) if (result.status === 'rejected') throw result.reason;
  }
  await Promise.all(handles.map((handle) => handle.close()));
  for (const [name, value] of seen) expect(Buffer.from(await truth.get(name)).toString()).toBe(value);
  for (const count of creators.values()) expect(count).toBe(1);
}
