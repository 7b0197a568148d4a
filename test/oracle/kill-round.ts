/**
 * A round of kills: with a server under load, SIGKILL hits one of its parts at a random moment; then every promise is
 * looked at, and a restore proves what is left.
 */
import { access, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Binaries } from '../../src/sources/postgres/binaries.ts';
import { startServer } from '../../src/sources/postgres/server.ts';
import { compareWith } from './compare.ts';
import { Run } from './holdfast.ts';
import { Random } from './random.ts';
import { type CommitRecord, entriesBefore, formatLsn, formatTime, type Truth } from './truth.ts';
import { type Figures, World } from './world.ts';

export const victims = ['backup', 'capture', 'restore', 'server'] as const;
export type Victim = (typeof victims)[number];

export interface KillRound {
  readonly binaries: Binaries;
  readonly seed: number;
  readonly victim: Victim;
  /** How often it is killed. */
  readonly times: number;
  readonly figures: Figures;
  readonly say: (line: string) => void;
}

interface Scene {
  readonly world: World;
  readonly random: Random;
  readonly round: KillRound;
  /** Moments at which something was dead: targets of the restore that proves. */
  readonly moments: bigint[];
}

/** Throws when a promise is broken, with the seed. */
export async function killRound(round: KillRound): Promise<void> {
  const random = new Random(round.seed);
  const world = await World.open(round.binaries, round.figures);
  const scene: Scene = { world, random, round, moments: [] };
  try {
    await world.startLoad({ seed: random.below(2 ** 32), clients: 4, pauseMs: 40 });
    await world.startCapture();
    await world.backup();
    for (let turn = 0; turn < round.times; turn += 1) await kills[round.victim](scene);
    await prove(scene);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`kill ${round.victim}, seed ${round.seed}: ${why}`, { cause: error });
  } finally {
    await world.close();
  }
}

const kills: Readonly<Record<Victim, (scene: Scene) => Promise<void>>> = {
  backup: killBackup,
  capture: killCapture,
  restore: killRestore,
  server: killServer,
};

async function killBackup({ world, random, round }: Scene): Promise<void> {
  const before = (await world.list()).snapshots.length;
  const run = new Run(['backup', '--json'], world.place);
  const lived = await killWithin(run, random, 12_000);
  count(round);
  const { snapshots } = await world.list();
  const after = snapshots.length;
  // It may have been published, and killed before it could say so; said, it must be there.
  const said = run.stdout.includes('"result"');
  if (after - before > 1 || (said && after !== before + 1))
    throw new Error(`${after - before} snapshots more are listed after a backup that was killed`);
  round.say(`backup killed after ${lived} ms: ${after - before} more listed`);
  if (after > before && !said) await restorable(world, snapshots.at(-1).id);
  await world.backup();
}

/** A snapshot that is listed can be restored, whatever became of the one who made it. */
async function restorable(world: World, id: string): Promise<void> {
  const truth = await world.truth();
  const { snapshots } = await world.list();
  const { to } = snapshots.find((snapshot: { id: string }) => snapshot.id === id);
  same(
    await world.restoreAndCompare(['--snapshot', id], entriesBefore(truth, { kind: 'lsn', lsn: lsnOf(to) })),
  );
}

function lsnOf(text: string): bigint {
  const [high, low] = text.split('/');
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

async function killCapture({ world, random, round, moments }: Scene): Promise<void> {
  await pause(random.between(0, 2500));
  const acknowledged = await world.acknowledged();
  await world.stopCapture('SIGKILL');
  count(round);
  const [window, ...others] = await world.windows();
  if (window === undefined || others.length > 0) throw new Error(`${others.length + 1} windows after a kill`);
  if (acknowledged !== null && window.toLsn < acknowledged)
    throw new Error(`acknowledged ${formatLsn(acknowledged)}, kept ${formatLsn(window.toLsn)}`);
  await pause(random.between(200, 2000));
  moments.push(BigInt(Date.now()) * 1000n);
  await pause(200);
  await world.startCapture();
  await world.captured();
  round.say(
    `capture killed: acknowledged ${acknowledged === null ? 'nothing yet' : formatLsn(acknowledged)}, kept ${formatLsn(window.toLsn)}`,
  );
}

async function killRestore({ world, random, round }: Scene): Promise<void> {
  await world.captured();
  const [window] = await world.windows();
  const truth = await world.truth();
  const inside = truth.commits.filter(({ time }) => time > window!.from && time < window!.to);
  const { time } = random.pick(inside);
  const expected = entriesBefore(truth, { kind: 'time', time });
  const start = random.below(2) === 0;
  const to = world.nextFolder();
  const args = ['restore', '--at', formatTime(time), '--to', to, ...(start ? ['--start'] : []), '--json'];
  const run = new Run(args, world.place);
  const lived = await killWithin(run, random, 12_000);
  count(round);
  const came = await startsWith(to, round);
  // What starts must be what was asked for, to the last row.
  if (came !== undefined) {
    same((await compareWith(came.url, expected)).differences);
    await came.stop('immediate');
  }
  round.say(
    `restore${start ? ' --start' : ''} killed after ${lived} ms: ${came === undefined ? 'does not start' : 'starts, and is complete'}`,
  );
  await rm(to, { recursive: true, force: true });
  same(await world.restoreAndCompare(['--at', formatTime(time)], expected));
}

/** Starts the server in a folder that a killed restore left, as somebody would who does not know; undefined when it refuses. */
async function startsWith(to: string, round: KillRound) {
  const there = await access(join(to, 'PG_VERSION')).then(
    () => true,
    () => false,
  );
  if (!there) return undefined;
  await endOfServer(to);
  try {
    return await startServer({ binDir: round.binaries.binDir, dataDir: to, deadlineMs: 15_000 });
  } catch {
    // Refused is what it should be; that it is refused again after the cause was looked at, too.
    return undefined;
  }
}

/** A server that the killed restore had started must end by itself, or be done. */
async function endOfServer(dataDir: string): Promise<void> {
  const until = performance.now() + 40_000;
  for (;;) {
    const text = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '');
    const pid = Number(text.split('\n')[0]);
    if (!(pid > 0) || !isRunning(pid)) return;
    const status = text.split('\n')[7]?.trim();
    if (status === 'ready') {
      // It had come to its end before the kill: it goes on as a server that nobody supervises.
      process.kill(pid, 'SIGQUIT');
    }
    if (performance.now() > until) {
      process.kill(pid, 'SIGQUIT');
      throw new Error(
        `the server in ${dataDir} goes on recovering 40 s after its restore was killed (${status})`,
      );
    }
    await pause(200);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function killServer({ world, random, round, moments }: Scene): Promise<void> {
  await pause(random.between(200, 2500));
  const confirmed = new Set(world.load.confirmed);
  await world.server.kill();
  count(round);
  moments.push(BigInt(Date.now()) * 1000n);
  await pause(random.between(0, 1500));
  await world.restartServer();
  const { entries } = await world.truth();
  const ids = new Set([...entries.values()].map(({ id }) => id));
  const lost = [...confirmed].filter((id) => !ids.has(id));
  if (lost.length > 0) throw new Error(`the server itself lost ${lost.length} confirmed transactions`);
  await world.captured();
  await world.load.confirms();
  round.say(`server killed after ${confirmed.size} confirmed transactions; capture goes on by itself`);
}

/** Nothing is damaged, the window has no gap, and moments inside the outages come back, and the last one. */
async function prove({ world, random, round, moments }: Scene): Promise<void> {
  await pause(500);
  await world.stopLoad();
  await pause(2000);
  await world.captured();
  await world.stopCapture();
  const truth = await world.truth();
  const { gaps } = await world.list();
  const windows = await world.windows();
  const [window] = windows;
  if (window === undefined || windows.length !== 1 || gaps.length > 0)
    throw new Error(`${windows.length} windows and ${gaps.length} gaps after kills`);
  await world.verify();
  same(await world.restoreAndCompare([], entriesBefore(truth, { kind: 'all' })));
  const inside = truth.commits.filter(
    ({ time, lsn }) => time > window.from && time <= window.to && lsn < window.toLsn,
  );
  const times = [
    ...moments.filter((time) => time > window.from && time < window.to),
    random.pick(inside).time,
  ];
  for (const time of times.slice(-2)) await restoreAt(world, truth, time);
  round.say(`proved: ${truth.entries.size} transactions, ${times.slice(-2).length} moments`);
}

async function restoreAt(world: World, truth: Truth, time: CommitRecord['time']): Promise<void> {
  same(
    await world.restoreAndCompare(['--at', formatTime(time)], entriesBefore(truth, { kind: 'time', time })),
  );
}

function same(differences: readonly string[]): void {
  if (differences.length > 0) throw new Error(`the restored rows differ: ${differences.join('; ')}`);
}

function count(round: KillRound): void {
  round.figures.kills += 1;
}

/** Kills at a random moment, or finds that it has ended; returns how long it lived, ms. */
async function killWithin(run: Run, random: Random, mostMs: number): Promise<number> {
  const started = performance.now();
  const after = random.below(mostMs);
  await Promise.race([pause(after), run.ended]);
  if (run.running) await run.kill('SIGKILL');
  await run.ended;
  return Math.round(performance.now() - started);
}

async function pause(ms: number): Promise<void> {
  await new Promise((wait) => setTimeout(wait, ms));
}
