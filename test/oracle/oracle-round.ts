/**
 * A round of the random-target oracle: a server under load, captured; then restores to many targets, each
 * compared row by row with what the order of the commit records in the server's own log says.
 */
import type { Binaries } from '../../src/sources/postgres/binaries.ts';
import { compareWith } from './compare.ts';
import type { Entry } from './journal.ts';
import { Random } from './random.ts';
import { type CommitRecord, entriesBefore, formatLsn, formatTime, type Stop, type Truth } from './truth.ts';
import { type Figures, type Window, World } from './world.ts';

/** What is asked for, and what must come of it. */
interface Target {
  readonly name: string;
  readonly args: readonly string[];
  /** The transactions that must be there, or the code of the refusal. */
  readonly expected: readonly Entry[] | string;
  /** The code of a refusal that is right, too. */
  readonly orRefused?: string;
  /** Belongs to a short round, too. */
  readonly few?: boolean;
}

export interface OracleRound {
  readonly binaries: Binaries;
  readonly seed: number;
  /** Targets on the first timeline beside the fixed ones, and on the second. */
  readonly random: number;
  readonly secondTimeline: boolean;
  /** Only the random targets, the newest moment and a bare snapshot. */
  readonly few?: boolean;
  readonly figures: Figures;
  readonly say: (line: string) => void;
}

/** Throws at the end, naming every target that did not bring back what it had to. */
export async function oracleRound(round: OracleRound): Promise<void> {
  const random = new Random(round.seed);
  const world = await World.open(round.binaries, round.figures);
  const failures: string[] = [];
  try {
    const first = await firstHistory(world, random);
    const all = firstTargets(first, random, round.random);
    const targets = round.few === true ? all.filter(({ few }) => few) : all;
    await tryAll(world, targets, failures, round.say);
    if (round.secondTimeline) await second(world, first, { random, failures, round });
  } finally {
    await world.close();
  }
  if (failures.length > 0) throw new Error(`seed ${round.seed}:\n${failures.join('\n')}`);
}

interface History {
  readonly truth: Truth;
  readonly window: Window;
  readonly snapshots: readonly { readonly id: string; readonly to: bigint }[];
}

async function firstHistory(world: World, random: Random): Promise<History> {
  // Sometimes the capture is there first, sometimes the snapshot.
  const snapshots: { id: string; to: bigint }[] = [];
  const early = random.below(3) === 0;
  await world.startLoad({ seed: random.below(2 ** 32), clients: random.between(3, 6), pauseMs: 25 });
  if (early) snapshots.push(await world.backup());
  await world.startCapture();
  await pause(random.between(300, 1500));
  snapshots.push(await world.backup());
  await pause(random.between(500, 2500));
  if (random.below(2) === 0) await world.query('SELECT pg_switch_wal()');
  if (random.below(2) === 0) snapshots.push(await world.backup());
  await pause(random.between(300, 1500));
  await world.stopLoad();
  // So that a heartbeat comes and the moment right after the last transaction is a moment of the window.
  await pause(2500);
  await world.captured();
  await world.stopCapture();
  const truth = await world.truth();
  checkJournal(truth);
  const windows = await world.windows();
  const window = windows.at(-1)!;
  if (!early && windows.length !== 1) throw new Error(`${windows.length} windows instead of one`);
  return { truth, window, snapshots: snapshots.filter(({ to }) => to >= window.fromLsn) };
}

/** Every row of the journal has its commit record: else the oracle, not the product, would be wrong. */
function checkJournal(truth: Truth): void {
  const xids = new Set(truth.commits.map(({ xid }) => xid));
  const without = [...truth.entries.keys()].filter((xid) => !xids.has(xid));
  if (without.length > 0) throw new Error(`the log read has no commit of ${without.slice(0, 5).join(', ')}`);
}

function at(truth: Truth, time: bigint, name: string, more: readonly string[] = []): Target {
  return {
    name,
    args: ['--at', formatTime(time), ...more],
    expected: entriesBefore(truth, { kind: 'time', time }),
  };
}

function lsn(truth: Truth, position: bigint, name: string, more: readonly string[] = []): Target {
  const stop: Stop = { kind: 'lsn', lsn: position };
  return { name, args: ['--lsn', formatLsn(position), ...more], expected: entriesBefore(truth, stop) };
}

const outside = 'recovery.outside-window';

function firstTargets({ truth, window, snapshots }: History, random: Random, count: number): Target[] {
  const all = entriesBefore(truth, { kind: 'all' });
  const last = truth.commits.findLast(({ xid }) => truth.entries.has(xid))!;
  const snapshot = random.pick(snapshots);
  const inside = truth.commits.filter(
    ({ time, lsn: at }) => time > window.from && time <= window.to && at < window.toLsn,
  );
  const fixed = [
    { name: 'latest', args: [], expected: all, few: true },
    at(truth, window.from, 'the first moment of the window'),
    at(truth, window.to, 'the last moment of the window'),
    // The edges listed are safe ones; a plan, which sees the commits, may reach a little further.
    { ...at(truth, window.from - 1n, 'just before the window'), orRefused: outside },
    {
      name: 'long before the window',
      args: ['--at', formatTime(window.from - 3_600_000_000n)],
      expected: outside,
    },
    { name: 'just after the window', args: ['--at', formatTime(window.to + 1n)], expected: outside },
    lsn(truth, window.fromLsn, 'the first position of the window'),
    lsn(truth, window.toLsn, 'the last position of the window'),
    { name: 'before the first position', args: ['--lsn', formatLsn(window.fromLsn - 1n)], expected: outside },
    { name: 'beyond the last position', args: ['--lsn', formatLsn(window.toLsn + 1n)], expected: outside },
    at(truth, last.time, 'the last transaction'),
    at(truth, last.time + 1n, 'the moment right after the last transaction'),
    lsn(truth, last.lsn + 1n, 'the position right after the start of the last commit'),
    {
      name: 'a bare snapshot',
      args: ['--snapshot', snapshot.id],
      expected: entriesBefore(truth, { kind: 'lsn', lsn: snapshot.to }),
      few: true,
    },
  ];
  return [
    ...fixed,
    ...Array.from({ length: count }, () => ({ ...anywhere(truth, inside, window, random), few: true })),
  ];
}

function anywhere(
  truth: Truth,
  inside: readonly CommitRecord[],
  window: Window,
  random: Random,
  more: readonly string[] = [],
): Target {
  const commit = random.pick(inside);
  const next = inside[inside.indexOf(commit) + 1] ?? commit;
  const between = (from: bigint, to: bigint) =>
    from + BigInt(Math.floor(random.next() * Number(to - from + 1n)));
  const inWindow = (time: bigint) => (time < window.from ? window.from : time > window.to ? window.to : time);
  switch (random.below(6)) {
    case 0:
      return at(truth, commit.time, 'the very time of a commit', more);
    case 1:
      return at(truth, inWindow(commit.time - 1n), 'a microsecond before a commit', more);
    case 2:
      return at(truth, inWindow(commit.time + 1n), 'a microsecond after a commit', more);
    case 3:
      return at(truth, between(inside[0]!.time, inside.at(-1)!.time), 'any time', more);
    case 4:
      return lsn(truth, commit.lsn, 'the start of a commit record', more);
    default:
      return lsn(truth, between(commit.lsn, next.lsn), 'any position', more);
  }
}

async function tryAll(
  world: World,
  targets: readonly Target[],
  failures: string[],
  say: (line: string) => void,
): Promise<void> {
  for (const { name, args, expected, orRefused } of targets) {
    const started = performance.now();
    let differences: readonly string[];
    try {
      if (typeof expected === 'string') differences = await world.refuses(args, expected);
      else if (orRefused === undefined) differences = await world.restoreAndCompare(args, expected);
      else differences = await world.refusesOrBrings(args, orRefused, expected);
    } catch (error) {
      differences = [error instanceof Error ? error.message : String(error)];
      world.figures.losses += 1;
    }
    const what = typeof expected === 'string' ? `refused (${expected})` : `${expected.length} transactions`;
    say(
      `${differences.length === 0 ? 'same' : 'DIFFERENT'}  ${name} [${args.join(' ')}]: ${what}, ${Math.round(performance.now() - started)} ms`,
    );
    for (const difference of differences) failures.push(`${name} [${args.join(' ')}]: ${difference}`);
  }
}

interface Going {
  readonly random: Random;
  readonly failures: string[];
  readonly round: OracleRound;
}

/** A restored server goes on with its own capture: then targets on both timelines. */
async function second(world: World, first: History, { random, failures, round }: Going): Promise<void> {
  const { truth, window } = first;
  const inside = truth.commits.filter(({ time }) => time > window.from && time < window.to);
  const fork = inside[Math.floor(inside.length * (0.3 + random.next() * 0.4))]!;
  const stop: Stop = { kind: 'lsn', lsn: fork.lsn };
  await world.moveTo(['--lsn', formatLsn(fork.lsn)]);
  const inherited = entriesBefore(truth, stop);
  const { differences } = await compareWith(world.server.url, inherited);
  failures.push(...differences.map((difference) => `the server that goes on: ${difference}`));
  await world.startCapture();
  await world.startLoad({ seed: random.below(2 ** 32), clients: 3, pauseMs: 25, firstId: 1_000_000 });
  await pause(1000);
  const snapshot = random.below(2) === 0 ? await world.backup() : undefined;
  await pause(2000);
  await world.stopLoad();
  await pause(2500);
  await world.captured();
  await world.stopCapture();
  const own = await world.truth();
  const joined: Truth = {
    ...own,
    commits: [...truth.commits.filter(({ lsn: start }) => start < fork.lsn), ...own.commits],
  };
  checkJournal(joined);
  const now = (await world.windows()).find(({ lineage }) => lineage.endsWith('/2'));
  if (now === undefined) throw new Error('the second timeline has no window');
  const mine = own.commits.filter(
    ({ time, lsn: start }) => time > now.from && time < now.to && start >= now.fromLsn,
  );
  const after = inside.filter(({ lsn: start }) => start > fork.lsn);
  const late = random.pick(after);
  const targets: Target[] = [
    { name: 'latest, of the second timeline', args: [], expected: entriesBefore(joined, { kind: 'all' }) },
    at(truth, late.time, 'a time on the first timeline after the fork'),
    lsn(truth, late.lsn, 'a position on the first timeline after the fork', ['--timeline', '1']),
    at(joined, random.pick(mine).time, 'a time on the second timeline'),
    lsn(joined, random.pick(mine).lsn, 'a position on the second timeline', ['--timeline', '2']),
    ...(snapshot === undefined
      ? []
      : [
          {
            name: 'a snapshot of the second timeline',
            args: ['--snapshot', snapshot.id],
            expected: entriesBefore(joined, { kind: 'lsn', lsn: snapshot.to }),
          },
        ]),
  ];
  await tryAll(world, targets, failures, round.say);
}

async function pause(ms: number): Promise<void> {
  await new Promise((wait) => setTimeout(wait, ms));
}
