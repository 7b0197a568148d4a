/** `wal push` against pgBackRest's archive-push: one segment, and 200 that wait after an outage. */
import { chmod, copyFile, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { alternate, type Bench, type BenchCase } from '../bench-case.ts';
import { BenchHoldfast, holdfast } from '../bench-holdfast.ts';
import { BenchPgBackRest } from '../bench-pgbackrest.ts';
import { BenchPostgres } from '../bench-postgres.ts';
import { type Measured, measure, measureShell } from '../measured-process.ts';
import { limitRow, rounded } from '../result.ts';
import { median, spreadOf } from '../statistics.ts';

const name = 'wal-push';
const waiting = Number(process.env.HOLDFAST_BENCH_SEGMENTS ?? '200');
const segmentName = /^[0-9A-F]{24}$/;

interface Fixture extends AsyncDisposable {
  readonly server: BenchPostgres;
  /** Whole segments of the server's log, in order. */
  readonly segments: readonly string[];
}

export const walPush: BenchCase<Fixture> = {
  name,
  summary: 'archiving: one segment, and a backlog, against pgBackRest archive-push with async',
  setUp: async (bench) => {
    bench.say(`starting a server and writing ${waiting} segments of log`);
    const server = await BenchPostgres.create(bench.folder, 15, 0.25);
    const folder = join(server.server.dataDir, 'pg_wal');
    const whole = async () => {
      const { rows } = await server.client.query(
        'SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS last',
      );
      const names = (await readdir(folder)).filter((file) => segmentName.test(file)).sort();
      return names.filter((file) => file < rows[0].last);
    };
    // Rows of a kind and small changes here and there, as in a real log.
    for (let round = 0; (await whole()).length < waiting; round += 1) {
      const text = `CREATE TABLE more_${round} AS SELECT * FROM events_${1 + (round % 4)}`;
      await server.client.query({ text, query_timeout: 600_000 } as never);
      await server.transactions(100);
    }
    const segments = (await whole()).slice(-waiting);
    const dispose = () => server[Symbol.asyncDispose]();
    return { server, segments, [Symbol.asyncDispose]: dispose };
  },
  parts: { one, backlog },
  versions: async () => {
    const said = /\d+(\.\d+)+/.exec((await measure('pgbackrest', ['version'])).stdout)?.[0];
    return { pgBackRest: said ?? 'unknown' };
  },
};

/** The log of a server as its archiver finds it: segments, marks, control file. */
async function outage(bench: Bench, fixture: Fixture, count: number): Promise<string> {
  const folder = join(bench.folder, 'outage');
  await rm(folder, { recursive: true, force: true });
  const status = join(folder, 'pg_wal', 'archive_status');
  await mkdir(status, { recursive: true });
  await mkdir(join(folder, 'global'));
  const from = fixture.server.server.dataDir;
  await copyFile(join(from, 'global', 'pg_control'), join(folder, 'global', 'pg_control'));
  for (const segment of fixture.segments.slice(0, count)) {
    await copyFile(join(from, 'pg_wal', segment), join(folder, 'pg_wal', segment));
    await writeFile(join(status, `${segment}.ready`), '');
  }
  await chmod(folder, 0o700);
  await measure('sync', []);
  return folder;
}

async function one(bench: Bench, fixture: Fixture): Promise<void> {
  const ours = await BenchHoldfast.create(join(bench.folder, 'ours'), fixture.server.url);
  await ours.run(['backup']);
  const folder = await outage(bench, fixture, bench.runs + 1);
  const runs: Measured[] = [];
  for (const [round, segment] of fixture.segments.slice(0, bench.runs + 1).entries()) {
    const run = await ours.run(['wal', 'push', '--no-others', `pg_wal/${segment}`], { cwd: folder });
    // The first compiles, and asks the repository what there is.
    if (round > 0) runs.push(run);
  }
  bench.add(
    limitRow(
      `${name} one segment of 16 MiB`,
      runs.map(({ ms }) => ms),
      'ms',
      150,
    ),
  );
  await ours.remove();
}

/** As PostgreSQL calls: one after the other, each until it says that its file is durable. */
const archiver =
  'cd "$1" && shift && for file in pg_wal/????????????????????????; do "$@" "$file" || exit 1; rm "pg_wal/archive_status/${file#pg_wal/}.ready"; done';

async function backlog(bench: Bench, fixture: Fixture): Promise<void> {
  const runs = await alternate(
    bench.runs,
    async (round) => {
      bench.say(`${waiting} waiting segments, ours, round ${round + 1}`);
      const ours = await BenchHoldfast.create(join(bench.folder, 'ours'), fixture.server.url);
      await ours.run(['backup']);
      const before = await ours.storedBytes();
      const folder = await outage(bench, fixture, waiting);
      const run = await measureShell(archiver, [folder, holdfast, '--config', ours.config, 'wal', 'push']);
      const stored = (await ours.storedBytes()) - before;
      await ours.remove();
      return { ...run, stored };
    },
    async (round) => {
      bench.say(`${waiting} waiting segments, pgBackRest, round ${round + 1}`);
      const peer = await BenchPgBackRest.create(join(bench.folder, 'peer'), fixture.server);
      const before = await peer.storedBytes();
      const folder = await outage(bench, fixture, waiting);
      const options = [
        `--config=${peer.config}`,
        '--stanza=bench',
        `--pg1-path=${folder}`,
        '--archive-async',
      ];
      const run = await measureShell(archiver, [folder, 'pgbackrest', ...options, 'archive-push']);
      const stored = (await peer.storedBytes()) - before;
      await peer.remove();
      return { ...run, stored };
    },
  );
  const [ours, peer] = [spreadOf(runs.ours.map(({ ms }) => ms)), spreadOf(runs.peer.map(({ ms }) => ms))];
  const bytes =
    (await stat(join(fixture.server.server.dataDir, 'pg_wal', fixture.segments[0]!))).size * waiting;
  const stored = (side: readonly { readonly stored: number }[]) => median(side.map((run) => run.stored));
  const most = (side: readonly Measured[]) => rounded(Math.max(...side.map((run) => run.peakPssMib)));
  const cpu = (side: readonly Measured[]) => rounded(median(side.map((run) => run.cpuSeconds)));
  bench.add({
    case: `${name} ${waiting} waiting segments`,
    ours_ms: rounded(ours.median),
    peer: 'pgBackRest archive-push, async',
    peer_ms: rounded(peer.median),
    ratio: rounded(peer.median / ours.median),
    must: 1,
    ours_mib: most(runs.ours),
    peer_mib: most(runs.peer),
    bytes,
    ours_stored: stored(runs.ours),
    peer_stored: stored(runs.peer),
    runs: bench.runs,
    ours_spread: [rounded(ours.least), rounded(ours.most)],
    peer_spread: [rounded(peer.least), rounded(peer.most)],
    ours_cpu_s: cpu(runs.ours),
    peer_cpu_s: cpu(runs.peer),
  });
}
