/** A PostgreSQL server on this host, its files read directly, against pgBackRest. */
import { join } from 'node:path';
import type { Bench, BenchCase } from '../bench-case.ts';
import { alternate } from '../bench-case.ts';
import { BenchHoldfast } from '../bench-holdfast.ts';
import { BenchPgBackRest } from '../bench-pgbackrest.ts';
import { BenchPostgres } from '../bench-postgres.ts';
import { type Measured, measure } from '../measured-process.ts';
import { limitRow, rounded } from '../result.ts';
import { median, spreadOf } from '../statistics.ts';

const name = 'postgres';
const major = 15;
const memoryMib = 256;
/** Several large tables: pgBackRest gives one to each process. */
const partitions = 8;
const eventTables = [1, 2, 3, 4];
const scale = Number(process.env.HOLDFAST_BENCH_SCALE ?? '1');

interface Run extends Measured {
  readonly stored: number;
}

export const postgres: BenchCase<BenchPostgres> = {
  name,
  summary: 'full and incremental snapshots of a data directory on this host, against pgBackRest',
  setUp: async (bench) => {
    bench.say('starting a server and filling it with about 1 GB in several large tables');
    return await BenchPostgres.create(bench.folder, major, scale, partitions);
  },
  parts: { full, incremental },
  versions: async () => {
    const said = async (program: string, ...args: string[]) =>
      /\d+(\.\d+)+/.exec((await measure(program, args)).stdout)?.[0] ?? 'unknown';
    return { PostgreSQL: await said('psql', '--version'), pgBackRest: await said('pgbackrest', 'version') };
  },
};

async function full(bench: Bench, server: BenchPostgres): Promise<void> {
  const bytes = await server.dataBytes();
  const runs = await alternate(
    bench.runs,
    async (round): Promise<Run> => {
      bench.say(`full, ours, round ${round + 1}`);
      const ours = await BenchHoldfast.create(join(bench.folder, 'ours'), server.url, 'local');
      await server.settle();
      const run = await ours.run(['backup']);
      const stored = await ours.storedBytes();
      await ours.remove();
      return { ...run, stored };
    },
    async (round): Promise<Run> => {
      bench.say(`full, pgBackRest, round ${round + 1}`);
      const peer = await BenchPgBackRest.create(join(bench.folder, 'peer'), server);
      await server.settle();
      const run = await peer.run(['--type=full', 'backup']);
      const stored = await peer.storedBytes();
      await peer.remove();
      return { ...run, stored };
    },
  );
  report(bench, 'full', 1.2, bytes, runs);
}

/** One row in one page of a hundred: new row versions, and their entries in the indexes. */
async function scatter(server: BenchPostgres, round: number): Promise<void> {
  const page = `(ctid::text::point)[0]::int % 100 = ${(round * 37) % 100} AND (ctid::text::point)[1]::int = 7`;
  const change = async (text: string) =>
    void (await server.client.query({ text, query_timeout: 600_000 } as never));
  await change(`UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE ${page}`);
  for (const table of eventTables)
    await change(`UPDATE events_${table} SET amount = amount + 1 WHERE ${page}`);
}

async function incremental(bench: Bench, server: BenchPostgres): Promise<void> {
  const bytes = await server.dataBytes();
  const ours = await BenchHoldfast.create(join(bench.folder, 'ours'), server.url, 'local');
  const peer = await BenchPgBackRest.create(join(bench.folder, 'peer'), server);
  // What else changes a page by being read is done before.
  await server.client.query({ text: 'VACUUM', query_timeout: 600_000 } as never);
  await server.settle();
  await ours.run(['backup']);
  await peer.run(['--type=full', 'backup']);
  const runs: { ours: Run[]; peer: Run[] } = { ours: [], peer: [] };
  const grown = async (of: BenchHoldfast | BenchPgBackRest, args: readonly string[]): Promise<Run> => {
    const before = await of.storedBytes();
    await measure('sync', []);
    const run = await of.run(args);
    return { ...run, stored: (await of.storedBytes()) - before };
  };
  for (let round = 0; round < bench.runs; round++) {
    bench.say(`incremental after 1 % scattered change, round ${round + 1}`);
    await scatter(server, round);
    await server.settle();
    const takeOurs = async () => void runs.ours.push(await grown(ours, ['backup']));
    const takePeer = async () => void runs.peer.push(await grown(peer, ['--type=incr', 'backup']));
    for (const side of round % 2 === 0 ? [takeOurs, takePeer] : [takePeer, takeOurs]) await side();
  }
  await ours.remove();
  await peer.remove();
  report(bench, 'incremental, 1 % scattered', 2, bytes, runs);
}

function report(
  bench: Bench,
  what: string,
  must: number,
  bytes: number,
  runs: { readonly ours: readonly Run[]; readonly peer: readonly Run[] },
): void {
  const [ours, peer] = [spreadOf(runs.ours.map(({ ms }) => ms)), spreadOf(runs.peer.map(({ ms }) => ms))];
  const peaks = (side: readonly Measured[]) => side.map((run) => run.peakPssMib);
  bench.add({
    case: `${name} ${what}`,
    ours_ms: rounded(ours.median),
    peer: 'pgBackRest',
    peer_ms: rounded(peer.median),
    ratio: rounded(peer.median / ours.median),
    must,
    ours_mib: rounded(Math.max(...peaks(runs.ours))),
    peer_mib: rounded(Math.max(...peaks(runs.peer))),
    bytes,
    ours_stored: median(runs.ours.map(({ stored }) => stored)),
    peer_stored: median(runs.peer.map(({ stored }) => stored)),
    runs: bench.runs,
    ours_spread: [rounded(ours.least), rounded(ours.most)],
    peer_spread: [rounded(peer.least), rounded(peer.most)],
    ours_cpu_s: rounded(median(runs.ours.map((run) => run.cpuSeconds))),
    peer_cpu_s: rounded(median(runs.peer.map((run) => run.cpuSeconds))),
  });
  bench.add(limitRow(`${name} ${what}, peak memory`, peaks(runs.ours), 'MiB PSS', memoryMib));
}
