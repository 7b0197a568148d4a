/** Scenes in which something around a capture fails: the repository, the disk, the server's own past. */
import { execFile } from 'node:child_process';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Binaries } from '../../src/sources/postgres/binaries.ts';
import { Run } from './holdfast.ts';
import { Random } from './random.ts';
import { entriesBefore, formatLsn, formatTime, type Truth } from './truth.ts';
import { type Figures, World } from './world.ts';

export interface OutageRound {
  readonly binaries: Binaries;
  readonly seed: number;
  readonly figures: Figures;
  readonly say: (line: string) => void;
}

/** How long the server's fast shutdown may take while the repository is out of reach, ms. */
export const stopBoundMs = 30_000;

async function inWorld(
  round: OutageRound,
  work: (world: World, random: Random) => Promise<void>,
): Promise<void> {
  const random = new Random(round.seed);
  const world = await World.open(round.binaries, round.figures);
  try {
    await world.startLoad({ seed: random.below(2 ** 32), clients: 3, pauseMs: 40 });
    await world.startCapture();
    await world.backup();
    await work(world, random);
  } catch (error) {
    throw new Error(`seed ${round.seed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  } finally {
    await world.close();
  }
}

/** A shutdown of the server must not wait for a repository that is out of reach; nothing is lost by it. */
export async function stopWhileOutOfReach(round: OutageRound): Promise<number> {
  let took = 0;
  await inWorld(round, async (world, random) => {
    await pause(500);
    const away = `${world.repository}.away`;
    await rename(world.repository, away);
    await pause(random.between(0, 4000));
    const started = performance.now();
    await world.server.stop('fast');
    took = performance.now() - started;
    round.say(`the server stopped within ${Math.round(took)} ms`);
    if (took > stopBoundMs) throw new Error(`the fast shutdown took ${Math.round(took)} ms`);
    await rename(away, world.repository);
    await world.restartServer();
    await provesAll(world, round);
  });
  return took;
}

/** A repository that is away for a while: capture waits, goes on, and the window has no gap. */
export async function repositoryAway(round: OutageRound, awayMs: number): Promise<void> {
  await inWorld(round, async (world) => {
    const away = `${world.repository}.away`;
    await rename(world.repository, away);
    await pause(awayMs / 2);
    const middle = BigInt(Date.now()) * 1000n;
    await pause(awayMs / 2);
    await rename(away, world.repository);
    await provesAll(world, round, [middle]);
  });
}

/** The repository's disk is full: said with a code, nothing lost, and it goes on once there is room. */
export async function diskFull(round: OutageRound): Promise<void> {
  const run = promisify(execFile);
  const random = new Random(round.seed);
  const world = await World.open(round.binaries, round.figures);
  const disk = join(world.folder, 'disk');
  await mkdir(disk);
  await run('mount', ['-t', 'tmpfs', '-o', 'size=24m,mode=711', 'none', disk]);
  try {
    await world.moveRepository(join(disk, 'repository'));
    await world.startLoad({ seed: random.below(2 ** 32), clients: 3, pauseMs: 40 });
    await world.startCapture();
    await world.backup();
    // What fills it is somebody else's file, as in life; a little room is left, so that a put fails in its midst.
    const { stdout } = await run('df', ['--output=avail', '-k', disk]);
    const free = Number(stdout.trim().split('\n').at(-1));
    await run('dd', [
      'if=/dev/zero',
      `of=${join(disk, 'filler')}`,
      'bs=1k',
      `count=${Math.max(0, free - 200)}`,
    ]);
    await pause(4000);
    const backup = new Run(['backup', '--json'], world.place);
    const { status, stdout: said, stderr } = await backup.ended;
    const code = status === 0 ? 'none' : JSON.parse(said).error.code;
    round.say(`backup on the full disk: exit ${status}, ${code}`);
    if (!code.startsWith('storage.'))
      throw new Error(`backup on a full disk: exit ${status}, ${code}: ${stderr}${said}`);
    const middle = BigInt(Date.now()) * 1000n;
    await pause(1000);
    await run('rm', [join(disk, 'filler')]);
    await run('mount', ['-o', 'remount,size=96m', disk]);
    await world.ensureCapture();
    await provesAll(world, round, [middle]);
    await world.backup();
  } finally {
    await world.close(async () => {
      await run('umount', [disk]);
    });
  }
}

/** A data directory that was put back to an older state: noticed, a new stream, a gap in the list. */
export async function putBack(round: OutageRound): Promise<void> {
  await inWorld(round, async (world, random) => {
    await pause(500);
    const { dataDir } = world.server;
    // The copy is taken while the server is stopped, as from a disk's image.
    await world.stopLoad();
    await world.server.stop('fast');
    const copy = `${dataDir}.copy`;
    await promisify(execFile)('cp', ['-a', dataDir, copy]);
    await world.restartServer();
    await world.startLoad({ seed: random.below(2 ** 32), clients: 3, pauseMs: 20, firstId: 100_000 });
    await pause(2500);
    await world.stopLoad();
    await world.captured();
    const before = await world.truth();
    const reached = await world.position();
    const [window] = await world.windows();
    await world.server.stop('fast');
    await rename(dataDir, `${dataDir}.left`);
    await rename(copy, dataDir);
    await world.restartServer();
    await world.startLoad({ seed: random.below(2 ** 32), clients: 3, pauseMs: 0, firstId: 200_000 });
    await world.hears('gap in the log', 60_000);
    // Let it write past the place that the other past had reached: now the positions alone look continuous.
    while ((await world.position()) < reached + 4_000_000n) await pause(300);
    await world.backup();
    await pause(1000);
    await world.stopLoad();
    await pause(2000);
    await world.captured();
    await world.stopCapture();
    await world.verify();
    const truth = await world.truth();
    const { gaps } = await world.list();
    const windows = await world.windows();
    round.say(
      `put back: ${windows.length} windows, ${gaps.length} gaps, the past left had reached ${formatLsn(reached)}`,
    );
    const newest = windows.at(-1)!;
    if (windows.length < 2)
      throw new Error(`one window over two pasts: ${JSON.stringify(await world.list())}`);
    same(await world.restoreAndCompare([], entriesBefore(truth, { kind: 'all' })));
    const own = truth.commits.filter(
      ({ time, lsn }) => time > newest.from && time < newest.to && lsn > newest.fromLsn,
    );
    await atTime(world, truth, random.pick(own).time);
    const left = before.commits.filter(({ time }) => time > window!.from && time < window!.to);
    await atTime(world, before, random.pick(left).time);
  });
}

async function provesAll(world: World, round: OutageRound, moments: readonly bigint[] = []): Promise<void> {
  await pause(2000);
  await world.stopLoad();
  await pause(2000);
  await world.captured(90_000);
  await world.stopCapture();
  const truth = await world.truth();
  const windows = await world.windows();
  const { gaps } = await world.list();
  if (windows.length !== 1 || gaps.length > 0)
    throw new Error(`${windows.length} windows and ${gaps.length} gaps after an outage`);
  await world.verify();
  same(await world.restoreAndCompare([], entriesBefore(truth, { kind: 'all' })));
  for (const moment of moments) await atTime(world, truth, moment);
  round.say(`proved: ${truth.entries.size} transactions`);
}

async function atTime(world: World, truth: Truth, time: bigint): Promise<void> {
  same(
    await world.restoreAndCompare(['--at', formatTime(time)], entriesBefore(truth, { kind: 'time', time })),
  );
}

function same(differences: readonly string[]): void {
  if (differences.length > 0) throw new Error(`the restored rows differ: ${differences.join('; ')}`);
}

async function pause(ms: number): Promise<void> {
  await new Promise((wait) => setTimeout(wait, ms));
}
