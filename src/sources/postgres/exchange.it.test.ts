import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { areaOf, ExchangeArea, type Journal, type Spot } from './exchange.ts';

let root: string;
let spots: Spot[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-exchange-'));
  const area = join(root, 'data.holdfast', '1');
  const far = join(root, 'far');
  spots = [
    { live: join(root, 'data'), incoming: join(area, 'new'), outgoing: join(area, 'before') },
    {
      live: far,
      incoming: join(far, '.holdfast', '1', 'new'),
      outgoing: join(far, '.holdfast', '1', 'before'),
    },
  ];
  for (const [index, { live, incoming }] of spots.entries()) {
    for (const [folder, text] of [
      [live, 'old'],
      [incoming, 'new'],
    ] as const) {
      await mkdir(join(folder, index === 0 ? 'global' : 'PG_15'), { recursive: true });
      await writeFile(join(folder, index === 0 ? 'global/pg_control' : 'PG_15/1'), text);
      await writeFile(join(folder, `only-${text}`), text);
    }
  }
});

afterEach(() => rm(root, { recursive: true }));

/** What a server would find: the text of pg_control and of the tablespace, or null where it could not start. */
async function found(): Promise<string | null> {
  const [data, far] = spots.map(({ live }) => live) as [string, string];
  const read = (path: string) => readFile(path, 'utf8').catch(() => null);
  const control = await read(join(data, 'global', 'pg_control'));
  if (control === null) return null;
  const rest = await Promise.all([data, far].map((live) => readdir(live)));
  return `${control} ${await read(join(far, 'PG_15', '1'))} ${rest
    .flat()
    .filter((name) => name !== '.holdfast')
    .sort()
    .join()}`;
}

const old = 'old old PG_15,global,only-old,only-old';
const fresh = 'new new PG_15,global,only-new,only-new';

/** Exchanges until the given renaming, which fails; returns how many there were, and the journal. */
async function killedAt(step: number): Promise<{ readonly moves: number; readonly journal: Journal }> {
  let moves = 0;
  const area = new ExchangeArea(join(root, 'data.holdfast'), undefined, () => {
    if (moves === step) throw new Error('killed');
    moves += 1;
  });
  const prepared = await area.prepare('1', 'restore', spots);
  await area.exchange(prepared).catch((error: Error) => {
    if (error.message !== 'killed') throw error;
  });
  return { moves, journal: (await area.journals())[0]! };
}

const whole = () => new ExchangeArea(join(root, 'data.holdfast'), undefined);

describe('an exchange', () => {
  test('puts the new in and keeps the old', async () => {
    const { journal } = await killedAt(Number.POSITIVE_INFINITY);
    expect(journal.state).toBe('done');
    expect(await found()).toBe(fresh);
    expect(await readFile(join(spots[0]!.outgoing, 'global', 'pg_control'), 'utf8')).toBe('old');
    await whole().takeBack(journal);
    expect(await found()).toBe(old);
  });

  for (let step = 0; step < 8; step += 1) {
    test(`killed before renaming ${step} can be finished, or taken back; until then nothing starts`, async () => {
      const { moves, journal } = await killedAt(step);
      expect([moves, journal.state]).toEqual([step, 'moving']);
      expect(await found()).toBe(step === 0 ? old : null);
      if (step % 2 === 0) {
        await whole().takeBack(journal);
        expect(await found()).toBe(old);
      } else {
        await whole().finish(journal);
        expect(await found()).toBe(fresh);
      }
    });
  }

  test('killed while it is taken back can be taken back again', async () => {
    const { journal } = await killedAt(5);
    for (let step = 0; ; step += 1) {
      let left = step;
      const area = new ExchangeArea(join(root, 'data.holdfast'), undefined, () => {
        left -= 1;
        if (left < 0) throw new Error('killed');
      });
      try {
        await area.takeBack(journal);
        break;
      } catch (error) {
        expect((error as Error).message).toBe('killed');
      }
    }
    expect(await found()).toBe(old);
  });

  test('whose end was not written down is taken back, also when a server ran since', async () => {
    await writeFile(join(spots[0]!.live, 'postmaster.opts'), 'old');
    const { journal } = await killedAt(Number.POSITIVE_INFINITY);
    await writeFile(join(spots[0]!.live, 'postmaster.opts'), 'new');
    await whole().takeBack({ ...journal, state: 'moving' });
    expect(await readFile(join(spots[0]!.live, 'postmaster.opts'), 'utf8')).toBe('old');
    expect(await readFile(join(spots[0]!.incoming, 'postmaster.opts'), 'utf8')).toBe('new');
  });

  test('what was only prepared is discarded without a trace of it', async () => {
    const journal = await whole().prepare('1', 'restore', spots);
    await whole().discard(journal);
    expect(await whole().journals()).toEqual([]);
    expect(await found()).toBe(old);
  });

  test('takes place beside the data', async () => {
    expect(await areaOf(join(root, 'data'))).toEqual({ root: join(root, 'data.holdfast'), inside: false });
  });
});
