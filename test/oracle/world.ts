/** A server under load, a repository, and a capture: everything that a round of the oracle needs. */
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Binaries } from '../../src/sources/postgres/binaries.ts';
import {
  freePort,
  initScratchCluster,
  type ScratchServer,
  startServer,
} from '../../src/sources/postgres/server.ts';
import { serverUser } from '../../src/sources/postgres/server-user.ts';
import { compareWith } from './compare.ts';
import { holdfast, type Place, type Result, Run } from './holdfast.ts';
import { type Entry, schema } from './journal.ts';
import { Load, type LoadOptions } from './load.ts';
import { formatLsn, parseLsn, parseTime, readTruth, type Truth } from './truth.ts';

/** Settings that let the server keep all of its log, so that the truth can be read from it. */
const settings = {
  wal_keep_size: '4GB',
  max_wal_size: '256MB',
  max_prepared_transactions: '20',
  shared_buffers: '16MB',
  fsync: 'on',
  autovacuum_naptime: '5s',
};

/** Figures of a round, summed up by a campaign. */
export interface Figures {
  restores: number;
  refusals: number;
  kills: number;
  transactions: number;
  rowsCompared: number;
  losses: number;
}

export function noFigures(): Figures {
  return { restores: 0, refusals: 0, kills: 0, transactions: 0, rowsCompared: 0, losses: 0 };
}

export interface Window {
  readonly from: bigint;
  readonly to: bigint;
  readonly fromLsn: bigint;
  readonly toLsn: bigint;
  readonly lineage: string;
}

export class World {
  /** Working folder of every run of holdfast; the repository is in it. */
  readonly folder: string;
  readonly binaries: Binaries;
  readonly figures: Figures;
  #server: ScratchServer;
  #capture: Run | undefined;
  #load: Load | undefined;
  #restored = 0;
  /** Folders of servers, ours to remove. */
  readonly #servers: string;
  /** Where the log that counts begins. */
  #logFrom = '0/0';
  readonly repository: string;
  /** Where its runs of holdfast are. */
  readonly place: Place;

  private constructor(folder: string, binaries: Binaries, server: ScratchServer, figures: Figures) {
    this.folder = folder;
    this.binaries = binaries;
    this.figures = figures;
    this.#server = server;
    this.#servers = join(folder, '..');
    this.repository = join(folder, 'repository');
    this.place = { cwd: folder, programs: binaries.binDir };
  }

  /** A new server with the empty tables, and a new repository. `more`: lines of the source's configuration. */
  static async open(binaries: Binaries, figures = noFigures(), more = ''): Promise<World> {
    const place = await mkdtemp(join(tmpdir(), 'holdfast-oracle-'));
    await chmod(place, 0o711);
    const folder = join(place, 'work');
    await mkdir(folder, { mode: 0o711 });
    // Not in `place`: the path of a socket has little room. In the cluster's own configuration, so that the
    // server keeps its address over restarts and restores.
    const socketDir = await mkdtemp('/tmp/holdfast-');
    const user = await serverUser();
    if (user !== undefined) await chown(socketDir, user.uid, user.gid);
    const access = { socketDir, port: await freePort() };
    const dataDir = join(place, 'server');
    const reachable = { unix_socket_directories: socketDir, port: String(access.port), listen_addresses: '' };
    await initScratchCluster({ binDir: binaries.binDir, dataDir, settings: { ...settings, ...reachable } });
    const server = await startServer({ binDir: binaries.binDir, dataDir, access });
    const world = new World(folder, binaries, server, figures);
    const [row] = await world.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
    world.#logFrom = row!.lsn;
    await world.query(schema);
    await world.configure('./repository', more);
    await holdfast(['init'], world.place);
    return world;
  }

  get server(): ScratchServer {
    return this.#server;
  }

  get load(): Load {
    if (this.#load === undefined) throw new Error('no load is running');
    return this.#load;
  }

  /** Writes holdfast.yaml for the server as it is now. */
  async configure(repository: string, more = ''): Promise<void> {
    await writeFile(join(this.folder, 'passphrase.txt'), 'correct horse battery staple\n', { mode: 0o600 });
    const lines = [
      `repository: ${JSON.stringify(repository)}`,
      'key: { passphraseFile: passphrase.txt }',
      'sources:',
      '  app:',
      '    kind: postgres',
      `    url: ${JSON.stringify(this.#server.url)}`,
      '    heartbeat: 1',
      ...more.split('\n').filter((line) => line !== ''),
    ];
    await writeFile(join(this.folder, 'holdfast.yaml'), `${lines.join('\n')}\n`);
  }

  async query<T extends pg.QueryResultRow = Record<string, unknown>>(sql: string): Promise<T[]> {
    return await inServer(this.#server.url, async (client) => (await client.query<T>(sql)).rows);
  }

  /** Starts the capture and waits until it streams. */
  async startCapture(): Promise<Run> {
    const run = new Run(['capture', '--progress', 'plain', '--json'], this.place);
    this.#capture = run;
    await run.says('streaming');
    return run;
  }

  async stopCapture(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const run = this.#capture;
    this.#capture = undefined;
    if (run === undefined) return;
    const ended = await run.kill(signal);
    if (signal === 'SIGTERM' && ended.status !== 0)
      throw new Error(`${run} ended with ${ended.status ?? ended.signal}: ${ended.stderr}${ended.stdout}`);
  }

  async startLoad(
    options: Omit<LoadOptions, 'url' | 'firstId'> & { readonly firstId?: number },
  ): Promise<Load> {
    this.#load = await Load.start({ firstId: 0, ...options, url: this.#server.url });
    return this.#load;
  }

  async stopLoad(): Promise<void> {
    const load = this.#load;
    if (load === undefined) return;
    this.#load = undefined;
    await load.stop();
    this.figures.transactions += load.begun;
  }

  /** Where the server's log is now. */
  async position(): Promise<bigint> {
    const [row] = await this.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn() AS lsn');
    return parseLsn(row!.lsn);
  }

  /** What the capture has acknowledged to the server: durable, by promise. Null while it is not connected. */
  async acknowledged(): Promise<bigint | null> {
    const rows = await this.query<{ lsn: string | null }>(
      'SELECT max(flush_lsn) AS lsn FROM pg_stat_replication WHERE flush_lsn IS NOT NULL',
    );
    const lsn = rows[0]?.lsn;
    return typeof lsn === 'string' ? parseLsn(lsn) : null;
  }

  /** Waits until everything written up to now is acknowledged. */
  async captured(deadlineMs = 60_000): Promise<bigint> {
    const wanted = await this.position();
    const until = performance.now() + deadlineMs;
    for (;;) {
      const there = await this.acknowledged();
      if (there !== null && there >= wanted) return wanted;
      if (performance.now() > until)
        throw new Error(
          `the capture did not reach ${wanted.toString(16)}, it is at ${there?.toString(16)}: ${this.#capture?.stderr}`,
        );
      if (this.#capture?.running === false)
        throw new Error(`the capture ended: ${this.#capture.stderr}${this.#capture.stdout}`);
      await new Promise((wait) => setTimeout(wait, 100));
    }
  }

  async truth(): Promise<Truth> {
    const { url, binDir, dataDir } = this.#server;
    return await readTruth({ url, binDir, dataDir }, this.#logFrom);
  }

  async backup(): Promise<{ readonly id: string; readonly from: bigint; readonly to: bigint }> {
    const result = await holdfast(['backup'], this.place);
    return snapshotOf(result);
  }

  async list(): Promise<Result> {
    const listing = await holdfast(['list', '--newest', '0'], this.place);
    if (listing.problems.length > 0)
      throw new Error(`list has problems: ${JSON.stringify(listing.problems)}`);
    return listing.sources[0];
  }

  async windows(): Promise<Window[]> {
    const { windows } = await this.list();
    return windows.map((window: Result) => ({
      // A bare snapshot has no moments, only a position.
      from: window.from === null ? 0n : parseTime(window.from),
      to: window.to === null ? 0n : parseTime(window.to),
      fromLsn: parseLsn(window.fromPosition),
      toLsn: parseLsn(window.toPosition),
      lineage: window.lineage,
    }));
  }

  /** Nothing in the repository is damaged, to the last decrypted byte. */
  async verify(): Promise<void> {
    const report = await holdfast(['verify', '--depth', 'content'], this.place);
    if (report.undamaged !== true || report.problems.length > 0)
      throw new Error(`verify found damage: ${JSON.stringify(report.problems)}`);
  }

  /** A folder for a restore, never used before, outside the working folder. */
  nextFolder(): string {
    this.#restored += 1;
    return join(this.#servers, `restored-${this.#restored}`);
  }

  /** Restores, starts, compares every row, stops and removes. Returns the differences, in words. */
  async restoreAndCompare(target: readonly string[], expected: readonly Entry[]): Promise<readonly string[]> {
    const to = this.nextFolder();
    const result = await holdfast(['restore', ...target, '--to', to, '--start'], this.place);
    const { server } = result.restored;
    try {
      this.figures.restores += 1;
      const { rows, differences } = await compareWith(server.connection, expected);
      this.figures.rowsCompared += rows;
      if (differences.length > 0) this.figures.losses += 1;
      return differences;
    } finally {
      await ended(server.pid, 'SIGQUIT');
      await rm(to, { recursive: true, force: true });
    }
  }

  /** As `restoreAndCompare`, for a target at an edge that may as well be refused. */
  async refusesOrBrings(
    target: readonly string[],
    code: string,
    expected: readonly Entry[],
  ): Promise<readonly string[]> {
    const to = this.nextFolder();
    const run = new Run(['restore', ...target, '--to', to, '--dry-run', '--json'], this.place);
    const { status } = await run.ended;
    return status === 4 ? await this.refuses(target, code) : await this.restoreAndCompare(target, expected);
  }

  /** That a target is refused, exit 4, with this code, and that nothing was written. */
  async refuses(target: readonly string[], code: string): Promise<readonly string[]> {
    const to = this.nextFolder();
    const run = new Run(['restore', ...target, '--to', to, '--json'], this.place);
    const { status, stdout } = await run.ended;
    this.figures.refusals += 1;
    const found = status === 4 ? JSON.parse(stdout).error.code : `exit ${status}`;
    const written = await readdir(to).catch(() => []);
    return [
      ...(found === code ? [] : [`refused with ${found} instead of ${code}: ${stdout}`]),
      ...(written.length === 0 ? [] : [`${to} was written to`]),
    ];
  }

  /**
   * Goes on with what a restore brought, as a person would: started, its settings released, the old server
   * stopped, and the new one, on its own timeline, started at the old one's address.
   */
  async moveTo(target: readonly string[]): Promise<void> {
    const to = this.nextFolder();
    await holdfast(['restore', ...target, '--to', to], this.place);
    await this.#server.stop('fast');
    const { binDir } = this.#server;
    const first = await startServer({ binDir, dataDir: to });
    try {
      await promoted(first.url);
      await inServer(first.url, async (client) => {
        const script = await readFile(join(to, 'holdfast-restore', 'release.sql'), 'utf8');
        for (const line of script.split('\n')) if (line.startsWith('ALTER SYSTEM')) await client.query(line);
      });
    } finally {
      await first.stop('fast');
    }
    await this.restartServer(to);
    this.#logFrom = formatLsn(await this.position());
  }

  /** Starts the server that was stopped or killed: the same data, the same address. */
  async restartServer(dataDir = this.#server.dataDir): Promise<void> {
    const { binDir, socketDir, port } = this.#server;
    this.#server = await startServer({ binDir, dataDir, access: { socketDir, port } });
  }

  /** Makes a new repository elsewhere and uses that from now on. */
  async moveRepository(address: string): Promise<void> {
    await this.configure(address);
    await holdfast(['init'], this.place);
  }

  /** Starts the capture again if it has ended by itself. */
  async ensureCapture(): Promise<boolean> {
    if (this.#capture?.running === true) return false;
    await this.startCapture();
    return true;
  }

  /** Waits until the capture has said `text`. */
  async hears(text: string, deadlineMs: number): Promise<void> {
    if (this.#capture === undefined) throw new Error('no capture is running');
    await this.#capture.says(text, deadlineMs);
  }

  /** `before`: what must be done once everything has ended, before the folders are removed. */
  async close(before?: () => Promise<void>): Promise<void> {
    if (this.#capture?.running === true) await this.#capture.kill('SIGKILL');
    await this.stopLoad().catch(() => undefined);
    await this.#server.stop('immediate');
    await before?.();
    await rm(this.#server.socketDir, { recursive: true, force: true });
    await rm(this.#servers, { recursive: true, force: true });
  }
}

async function inServer<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function promoted(url: string): Promise<void> {
  const until = performance.now() + 60_000;
  for (;;) {
    const recovering = await inServer(url, async (client) => {
      const { rows } = await client.query<{ recovering: boolean }>(
        'SELECT pg_is_in_recovery() AS recovering',
      );
      return rows[0]!.recovering;
    });
    if (!recovering) return;
    if (performance.now() > until) throw new Error('the restored server does not leave recovery');
    await new Promise((wait) => setTimeout(wait, 100));
  }
}

function snapshotOf(result: Result): { id: string; from: bigint; to: bigint } {
  return { id: result.id, from: parseLsn(result.from), to: parseLsn(result.to) };
}

/** Ends a server that a restore started, and waits until it is gone. */
export async function ended(pid: number, signal: NodeJS.Signals): Promise<void> {
  const until = performance.now() + 30_000;
  for (;;) {
    try {
      process.kill(pid, signal);
    } catch {
      return;
    }
    if (performance.now() > until) throw new Error(`the process ${pid} does not end`);
    await new Promise((wait) => setTimeout(wait, 50));
  }
}
