/**
 * A PostgreSQL server reached over its protocol, against what PostgreSQL brings itself: `pg_basebackup` and
 * `pg_receivewal`, piped to zstd.
 */
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { alternate, type Bench, type BenchCase } from '../bench-case.ts';
import { BenchHoldfast, holdfast, sourceName } from '../bench-holdfast.ts';
import { BenchPostgres } from '../bench-postgres.ts';
import { type LagFigures, LogLag } from '../log-lag.ts';
import { makeSnapshots } from '../many-snapshots.ts';
import { type Measured, MeasuredProcess, measure, measureShell } from '../measured-process.ts';
import { limitRow, rounded, worstRow } from '../result.ts';
import { median, spreadOf } from '../statistics.ts';

const name = 'postgres-remote';
const major = 15;
const memoryMib = 256;
const manySnapshots = 1000;
/** Seconds of load in one round of a capture, and of one round at a fixed rate. */
const floodSeconds = 12;
const pacedSeconds = 12;

/** For trying the harness itself: a part of the gigabyte. */
const scale = Number(process.env.HOLDFAST_BENCH_SCALE ?? '1');

export const postgresRemote: BenchCase<BenchPostgres> = {
  name,
  summary: 'snapshot and capture over the replication protocol, against pg_basebackup and pg_receivewal',
  setUp: async (bench) => {
    bench.say('starting a server and filling it with about 1 GB');
    return await BenchPostgres.create(bench.folder, major, scale);
  },
  parts: { commands, full, restore, capture, paced },
  versions: async () => {
    const said = async (program: string) =>
      /\d+(\.\d+)+/.exec((await measure(program, ['--version'])).stdout)?.[0];
    return { PostgreSQL: (await said('psql')) ?? 'unknown', zstd: (await said('zstd')) ?? 'unknown' };
  },
};

const mib = (runs: readonly Measured[]) => rounded(Math.max(...runs.map((run) => run.peakPssMib)));
const cpu = (runs: readonly Measured[]) => rounded(median(runs.map((run) => run.cpuSeconds)));

async function full(bench: Bench, postgres: BenchPostgres): Promise<void> {
  const bytes = await postgres.dataBytes();
  const peerFile = join(bench.folder, 'base.tar.zst');
  // Both are durable at the end. The peer's copy has no log in it: ours has, and is encrypted.
  const script = `pg_basebackup -h 127.0.0.1 -p "$1" -U postgres -c fast -Ft -X none -D - | zstd -q -3 -T1 -o "$2"; sync "$2" "$(dirname "$2")"`;
  const runs = await alternate(
    bench.runs,
    async (round) => {
      bench.say(`full, ours, round ${round + 1}`);
      const ours = await BenchHoldfast.create(join(bench.folder, 'ours'), postgres.url);
      await postgres.settle();
      const run = await ours.run(['backup']);
      const stored = await ours.storedBytes();
      await ours.remove();
      return { ...run, stored };
    },
    async (round) => {
      bench.say(`full, pg_basebackup | zstd -3, round ${round + 1}`);
      await postgres.settle();
      const run = await measureShell(script, [String(postgres.server.port), peerFile]);
      const stored = (await stat(peerFile)).size;
      await rm(peerFile);
      return { ...run, stored };
    },
  );
  const [ours, peer] = [spreadOf(runs.ours.map(({ ms }) => ms)), spreadOf(runs.peer.map(({ ms }) => ms))];
  bench.add({
    case: `${name} full`,
    ours_ms: rounded(ours.median),
    peer: 'pg_basebackup | zstd -3',
    peer_ms: rounded(peer.median),
    ratio: rounded(peer.median / ours.median),
    must: 0.9,
    ours_mib: mib(runs.ours),
    peer_mib: mib(runs.peer),
    bytes,
    ours_stored: median(runs.ours.map(({ stored }) => stored)),
    peer_stored: median(runs.peer.map(({ stored }) => stored)),
    runs: bench.runs,
    ours_spread: [rounded(ours.least), rounded(ours.most)],
    peer_spread: [rounded(peer.least), rounded(peer.most)],
    ours_cpu_s: cpu(runs.ours),
    peer_cpu_s: cpu(runs.peer),
  });
  bench.add(
    worstRow(
      `${name} full, peak memory`,
      runs.ours.map((run) => run.peakPssMib),
      'MiB PSS',
      memoryMib,
    ),
  );
}

async function restore(bench: Bench, postgres: BenchPostgres): Promise<void> {
  const ours = await BenchHoldfast.create(join(bench.folder, 'restore'), postgres.url);
  await postgres.settle();
  await ours.run(['backup']);
  const to = join(bench.folder, 'restored');
  const runs: Measured[] = [];
  for (let round = 0; round < bench.runs; round++) {
    bench.say(`restore, round ${round + 1}`);
    runs.push(await ours.run(['restore', '--to', to]));
    await rm(to, { recursive: true });
  }
  await ours.remove();
  bench.add(
    limitRow(
      `${name} restore, synced`,
      runs.map(({ ms }) => ms),
      'ms',
      null,
    ),
  );
  bench.add(
    limitRow(
      `${name} restore, CPU`,
      runs.map((run) => run.cpuSeconds),
      's',
      null,
    ),
  );
  bench.add(
    worstRow(
      `${name} restore, peak memory`,
      runs.map((run) => run.peakPssMib),
      'MiB PSS',
      memoryMib,
    ),
  );
}

interface Flood {
  readonly gigabytes: number;
  readonly tps: number;
  readonly cpuSeconds: number;
  readonly lag: LagFigures | null;
  readonly capture: Measured | null;
  readonly backup: Measured | null;
}

async function capture(bench: Bench, postgres: BenchPostgres): Promise<void> {
  const { tps } = await postgres.load(bench.folder, 10);
  const perClient = Math.max(100, Math.round((tps * floodSeconds) / 8));
  bench.say(
    `flat out without a capture: ${tps} transactions a second; rounds of ${8 * perClient} transactions`,
  );
  const runs = await alternate(
    bench.runs,
    (round) => {
      bench.say(`capture, ours, round ${round + 1}`);
      return captureOurs(bench, postgres, perClient, false);
    },
    (round) => {
      bench.say(`capture, pg_receivewal and zstd -1, round ${round + 1}`);
      return capturePeer(bench, postgres, perClient);
    },
  );
  addCaptureCpu(bench, runs.ours, runs.peer);
  addLag(bench, 'capture', runs.ours);
  const during: Flood[] = [];
  for (let round = 0; round < bench.runs; round++) {
    bench.say(`capture during a full backup, round ${round + 1}`);
    during.push(await captureOurs(bench, postgres, perClient, true));
  }
  addLag(bench, 'capture during a full backup', during);
  const backups = during.map((run) => run.backup!);
  bench.add(
    limitRow(
      `${name} full under load`,
      backups.map(({ ms }) => ms),
      'ms',
      null,
    ),
  );
}

function addLag(bench: Bench, what: string, runs: readonly Flood[]): void {
  bench.add(
    limitRow(
      `${name} ${what}, lag p95`,
      runs.map((run) => run.lag!.p95Ms),
      'ms',
      1000,
    ),
  );
  bench.add(
    worstRow(
      `${name} ${what}, lag max`,
      runs.map((run) => run.lag!.maxMs),
      'ms',
      1000,
    ),
  );
  bench.add(
    limitRow(
      `${name} ${what}, transactions`,
      runs.map((run) => run.tps),
      '/s',
      null,
    ),
  );
  const peaks = runs.map((run) => run.capture!.peakPssMib);
  bench.add(worstRow(`${name} ${what}, peak memory`, peaks, 'MiB PSS', memoryMib));
}

function addCaptureCpu(bench: Bench, oursRuns: readonly Flood[], peerRuns: readonly Flood[]): void {
  const perGigabyte = (run: Flood) => (run.cpuSeconds * 1000) / run.gigabytes;
  const [ours, peer] = [spreadOf(oursRuns.map(perGigabyte)), spreadOf(peerRuns.map(perGigabyte))];
  bench.add({
    case: `${name} capture, CPU ms per GB of log`,
    ours_ms: rounded(ours.median),
    peer: 'pg_receivewal, zstd -1',
    peer_ms: rounded(peer.median),
    ratio: rounded(peer.median / ours.median),
    must: 0.5,
    ours_mib: mib(oursRuns.map((run) => run.capture!)),
    peer_mib: null,
    bytes: Math.round(median(oursRuns.map((run) => run.gigabytes)) * 1e9),
    ours_stored: null,
    peer_stored: null,
    runs: oursRuns.length,
    ours_spread: [rounded(ours.least), rounded(ours.most)],
    peer_spread: [rounded(peer.least), rounded(peer.most)],
    ours_cpu_s: rounded(median(oursRuns.map((run) => run.cpuSeconds))),
    peer_cpu_s: rounded(median(peerRuns.map((run) => run.cpuSeconds))),
  });
}

async function startedCapture(bench: Bench, postgres: BenchPostgres) {
  const ours = await BenchHoldfast.create(join(bench.folder, 'capture'), postgres.url);
  await postgres.settle();
  const process = ours.start(['capture'], { anyStatus: true });
  await Promise.race([
    postgres.streaming(ours.slot),
    process.ended.then(({ stderr }) => {
      throw new Error(`the capture ended by itself:\n${stderr}`);
    }),
  ]);
  return { ours, process };
}

async function captureOurs(
  bench: Bench,
  postgres: BenchPostgres,
  perClient: number,
  withBackup: boolean,
): Promise<Flood> {
  const { ours, process } = await startedCapture(bench, postgres);
  const from = await postgres.position();
  const cpuBefore = await process.cpuSeconds();
  const lag = new LogLag(await probeClient(postgres), join(ours.repository, 'logs', sourceName));
  const backup = withBackup ? ours.run(['backup']) : null;
  const tps = await postgres.transactions(perClient);
  const lags = await lag.end();
  const backedUp = await backup;
  const to = await postgres.position();
  await postgres.acknowledged(ours.slot, to);
  const cpuSeconds = (await process.cpuSeconds()) - cpuBefore;
  const measured = await process.stop('SIGTERM');
  await postgres.dropSlot(ours.slot);
  await ours.remove();
  const gigabytes = Number(to - from) / 1e9;
  return { gigabytes, tps, cpuSeconds, lag: lags, capture: measured, backup: backedUp };
}

async function probeClient(postgres: BenchPostgres) {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ ...postgres.server.connection, ssl: false });
  await client.connect();
  return client;
}

/**
 * The peer writes segments and flushes each when it is complete (as it does by default), and zstd -1 then
 * compresses all of them. `pg_receivewal` 15 cannot compress with zstd itself nor write to a pipe; compressing
 * afterwards costs the same and favours the peer a little, since its files are still in the page cache.
 */
async function capturePeer(bench: Bench, postgres: BenchPostgres, perClient: number): Promise<Flood> {
  const folder = join(bench.folder, 'received');
  const slot = 'bench_peer';
  await mkdir(folder);
  await postgres.settle();
  await postgres.slot(slot);
  const program = join(postgres.binDir, 'pg_receivewal');
  const args = [...postgres.connect, '-D', folder, '--slot', slot, '--no-loop'];
  const process = new MeasuredProcess(program, args, { anyStatus: true });
  await postgres.streaming(slot);
  const from = await postgres.position();
  const cpuBefore = await process.cpuSeconds();
  const tps = await postgres.transactions(perClient);
  const to = await postgres.position();
  // It flushes whole segments only; what it has written is what counts here.
  await written(postgres, to);
  const receiving = (await process.cpuSeconds()) - cpuBefore;
  await process.stop('SIGINT');
  await postgres.dropSlot(slot);
  const zstd = await measureShell('cd "$1"; zstd -q -1 -T1 --rm *; sync *', [folder]);
  await rm(folder, { recursive: true });
  const gigabytes = Number(to - from) / 1e9;
  return { gigabytes, tps, cpuSeconds: receiving + zstd.cpuSeconds, lag: null, capture: null, backup: null };
}

async function written(postgres: BenchPostgres, position: bigint): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const { rows } = await postgres.client.query(
      "SELECT 1 FROM pg_stat_replication WHERE sent_lsn - '0/0'::pg_lsn >= $1::numeric",
      [String(position)],
    );
    if (rows.length > 0) break;
    if (performance.now() > deadline) throw new Error('pg_receivewal does not keep up');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
}

/** 70 % of what the server can do: does the application notice that its log is captured? */
async function paced(bench: Bench, postgres: BenchPostgres): Promise<void> {
  const flat = [];
  for (let round = 0; round < 3; round++) flat.push((await postgres.load(bench.folder, 10)).tps);
  const rate = Math.round(median(flat) * 0.7);
  bench.say(
    `flat out without a capture: ${Math.round(median(flat))} transactions a second; paced at ${rate}`,
  );
  const runs = await alternate(
    bench.runs,
    async (round) => {
      bench.say(`paced, with a capture, round ${round + 1}`);
      const { ours, process } = await startedCapture(bench, postgres);
      const load = await postgres.load(bench.folder, pacedSeconds, rate);
      const measured = await process.stop('SIGTERM');
      await postgres.dropSlot(ours.slot);
      await ours.remove();
      return { ...load, measured };
    },
    async (round) => {
      bench.say(`paced, without, round ${round + 1}`);
      await postgres.settle();
      return await postgres.load(bench.folder, pacedSeconds, rate);
    },
  );
  const lost = runs.ours.map((run, round) => 100 * (1 - run.tps / runs.peer[round]!.tps));
  const slower = runs.ours.map((run, round) => 100 * (run.p95Ms / runs.peer[round]!.p95Ms - 1));
  bench.add(
    limitRow(
      `${name} paced, p95 latency without capture`,
      runs.peer.map((run) => run.p95Ms),
      'ms',
      null,
    ),
  );
  bench.add(
    limitRow(
      `${name} paced, p95 latency with capture`,
      runs.ours.map((run) => run.p95Ms),
      'ms',
      null,
    ),
  );
  bench.add(limitRow(`${name} paced, p95 latency added`, slower, '%', 10));
  bench.add(limitRow(`${name} paced, throughput lost`, lost, '%', 1));
}

async function commands(bench: Bench, postgres: BenchPostgres): Promise<void> {
  const helps: number[] = [];
  // Once unmeasured: the first start after a change compiles.
  await measure(holdfast, ['--help'], { memory: false });
  for (let round = 0; round < 2 * bench.runs; round++) {
    helps.push((await measure(holdfast, ['--help'], { memory: false })).ms);
  }
  bench.add(limitRow('holdfast --help', helps, 'ms', 150));

  const ours = await BenchHoldfast.create(join(bench.folder, 'list'), postgres.url);
  bench.say(`making ${manySnapshots} small snapshots`);
  await makeSnapshots(ours.config, sourceName, manySnapshots);
  await ours.run(['list'], { memory: false });
  const lists: number[] = [];
  for (let round = 0; round < 2 * bench.runs; round++)
    lists.push((await ours.run(['list'], { memory: false })).ms);
  bench.add(limitRow(`holdfast list, ${manySnapshots} snapshots`, lists, 'ms', 500));
  const { peakPssMib } = await ours.run(['list', '--json', '--newest', '0']);
  bench.add(
    limitRow(`holdfast list, ${manySnapshots} snapshots, peak memory`, [peakPssMib], 'MiB PSS', memoryMib),
  );
  await ours.remove();
}
