/** The PostgreSQL server that the cases work on: durable as in production, about 1 GB in several tables. */
import { chmod, chown, mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client } from 'pg';
import { type PostgresMajor, postgresBinaries } from '../scripts/rig.ts';
import { initScratchCluster, type ScratchServer, startServer } from '../src/sources/postgres/server.ts';
import { serverUser } from '../src/sources/postgres/server-user.ts';
import { type Measured, measure } from './measured-process.ts';
import { percentile } from './statistics.ts';

/** pgbench's tables are two thirds; the rest is text and numbers that compress like real ones. */
const pgbenchScale = 40;
const eventTables = 4;
const eventsPerTable = 700_000;

const settings = {
  fsync: 'on',
  synchronous_commit: 'on',
  shared_buffers: '256MB',
  max_wal_size: '8GB',
  checkpoint_timeout: '30min',
  max_wal_senders: '10',
  max_replication_slots: '10',
  // The figures are of the load that we make, not of what the server does when it is idle.
  autovacuum: 'off',
};

export interface Load {
  readonly tps: number;
  /** Milliseconds; with a rate counted from the moment at which the transaction was due. */
  readonly p95Ms: number;
}

export class BenchPostgres implements AsyncDisposable {
  readonly server: ScratchServer;
  readonly client: Client;

  private constructor(server: ScratchServer, client: Client) {
    this.server = server;
    this.client = client;
  }

  static async create(
    folder: string,
    major: PostgresMajor,
    scale = 1,
    partitions = 0,
  ): Promise<BenchPostgres> {
    const { binDir } = await postgresBinaries(major);
    await chmod(folder, 0o755);
    const dataDir = join(folder, 'server');
    const user = await serverUser();
    await mkdir(dataDir, { mode: 0o700 });
    if (user !== undefined) await chown(dataDir, user.uid, user.gid);
    await initScratchCluster({ binDir, dataDir, settings });
    const hba = ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'];
    const server = await startServer({ binDir, dataDir, hba });
    const postgres = new BenchPostgres(server, await connect(server));
    await postgres.#fill(scale, partitions);
    return postgres;
  }

  async #fill(scale: number, partitions: number): Promise<void> {
    await this.pgbench([
      '-i',
      '-q',
      '-s',
      String(Math.max(1, Math.round(pgbenchScale * scale))),
      ...(partitions === 0 ? [] : [`--partitions=${partitions}`]),
    ]);
    for (let table = 1; table <= eventTables; table++) {
      await this.client.query({
        text: `CREATE TABLE events_${table} AS SELECT g AS id, now() - g * interval '1 s' AS at, g % 1000 AS account,
          (random() * 100000)::numeric(12,2) AS amount, md5(g::text || $1) AS token,
          'order ' || g || ' from customer ' || g % 977 || ' was shipped' AS note
          FROM generate_series(1, ${Math.round(eventsPerTable * scale)}) g`.replace('$1', `'${table}'`),
        query_timeout: 600_000,
      } as never);
      await this.client.query(`CREATE INDEX ON events_${table} (token)`);
    }
    await this.client.query('CREATE TABLE bench_probe (id int PRIMARY KEY, n bigint NOT NULL)');
    await this.client.query('INSERT INTO bench_probe VALUES (1, 0)');
    await this.client.query('VACUUM ANALYZE');
    await this.settle();
  }

  get binDir(): string {
    return this.server.binDir;
  }

  /** Over TCP, as a remote host would. */
  get url(): string {
    return `postgresql://postgres@127.0.0.1:${this.server.port}/postgres`;
  }

  /** Arguments of libpq's programs. */
  get connect(): string[] {
    return ['-h', '127.0.0.1', '-p', String(this.server.port), '-U', 'postgres'];
  }

  /** Everything on disk: both sides start from the same state, and the first write of each page is logged whole. */
  async settle(): Promise<void> {
    await this.client.query('CHECKPOINT');
    await measure('sync', []);
  }

  /** Position of the end of the log, bytes. */
  async position(): Promise<bigint> {
    const { rows } = await this.client.query('SELECT pg_current_wal_insert_lsn() - $1::pg_lsn AS bytes', [
      '0/0',
    ]);
    return BigInt(rows[0].bytes);
  }

  /** Size of the cluster as a base backup sees it: without the log. */
  async dataBytes(): Promise<number> {
    let bytes = 0;
    const walk = async (folder: string): Promise<void> => {
      for (const entry of await readdir(folder, { withFileTypes: true })) {
        const path = join(folder, entry.name);
        if (entry.isDirectory() && entry.name !== 'pg_wal') await walk(path);
        else if (entry.isFile()) bytes += (await stat(path)).size;
      }
    };
    await walk(this.server.dataDir);
    return bytes;
  }

  async pgbench(args: readonly string[], cwd = '/tmp'): Promise<Measured> {
    const program = join(this.binDir, 'pgbench');
    return await measure(program, [...this.connect, ...args, 'postgres'], { cwd, memory: false });
  }

  /** pgbench's standard load from 8 clients. With `rate` at that many transactions a second, else flat out. */
  async load(folder: string, seconds: number, rate?: number): Promise<Load> {
    const logs = join(folder, `pgbench-${Date.now()}`);
    await mkdir(logs);
    const pace = rate === undefined ? [] : [`--rate=${rate}`];
    const args = ['-n', '-c', '8', '-j', '2', '-T', String(seconds), '--log', ...pace];
    const { stdout } = await this.pgbench(args, logs);
    const latencies: number[] = [];
    for (const file of await readdir(logs)) {
      for (const line of (await readFile(join(logs, file), 'latin1')).split('\n')) {
        const microseconds = Number(line.split(' ')[2]);
        if (Number.isFinite(microseconds)) latencies.push(microseconds / 1000);
      }
    }
    return { tps: tpsOf(stdout), p95Ms: percentile(latencies, 0.95) };
  }

  /** So many transactions by each of 8 clients, as fast as they can. */
  async transactions(perClient: number): Promise<number> {
    return tpsOf((await this.pgbench(['-n', '-c', '8', '-j', '2', '-t', String(perClient)])).stdout);
  }

  async slot(name: string): Promise<void> {
    await this.client.query('SELECT pg_create_physical_replication_slot($1, true)', [name]);
  }

  async dropSlot(name: string): Promise<void> {
    const present = 'SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND active';
    while ((await this.client.query(present, [name])).rows.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const drop = 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1';
    await this.client.query(drop, [name]);
  }

  /** Waits until whoever uses that slot streams. */
  async streaming(slot: string, deadlineMs = 60_000): Promise<void> {
    await this.#until(
      'SELECT 1 FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid ' +
        "WHERE s.slot_name = $1 AND r.state = 'streaming'",
      [slot],
      deadlineMs,
    );
  }

  /** Waits until the slot's user has acknowledged everything up to there as durable. */
  async acknowledged(slot: string, position: bigint, deadlineMs = 120_000): Promise<void> {
    await this.#until(
      "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND restart_lsn - '0/0'::pg_lsn >= $2::numeric",
      [slot, String(position)],
      deadlineMs,
    );
  }

  async #until(sql: string, values: readonly string[], deadlineMs: number): Promise<void> {
    const deadline = performance.now() + deadlineMs;
    while ((await this.client.query(sql, [...values])).rows.length === 0) {
      if (performance.now() > deadline)
        throw new Error(`did not come true within ${deadlineMs} ms: ${sql} [${values}]`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end();
    await this.server.stop('immediate');
  }
}

async function connect(server: ScratchServer): Promise<Client> {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ ...server.connection, ssl: false });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

function tpsOf(stdout: string): number {
  return Number(/tps = ([\d.]+)/.exec(stdout)?.[1] ?? 0);
}
