/** Real clusters for the tests of this folder: initdb, start, psql, stop, in a temporary folder of their own. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The newest PostgreSQL of the system with every tool that the tests use; undefined when there is none. */
export function postgresBin(): string | undefined {
  const root = '/usr/lib/postgresql';
  if (!existsSync(root)) return undefined;
  const versions = readdirSync(root)
    .map(Number)
    .filter((version) => existsSync(join(root, String(version), 'bin', 'initdb')))
    .sort((a, b) => b - a);
  return versions.length === 0 ? undefined : join(root, String(versions[0]), 'bin');
}

/** Who runs the servers: PostgreSQL refuses root. */
function unprivileged(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const user of ['postgres', 'nobody']) {
    const fields = lines.find((line) => line.startsWith(`${user}:`))?.split(':');
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  throw new Error('no unprivileged user to run PostgreSQL as');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

export class ScratchCluster {
  readonly bin: string;
  readonly root: string;
  readonly data: string;
  readonly port: number;
  readonly #owner = unprivileged();

  private constructor(bin: string, root: string, port: number) {
    this.bin = bin;
    this.root = root;
    this.data = join(root, 'data');
    this.port = port;
  }

  /** A new cluster, running. `conf`: lines of postgresql.conf. `initdb`: further arguments. */
  static async create(
    options: { conf?: string; initdb?: string[]; start?: boolean } = {},
  ): Promise<ScratchCluster> {
    const bin = postgresBin();
    if (bin === undefined) throw new Error('no PostgreSQL with initdb on this machine');
    const cluster = new ScratchCluster(bin, mkdtempSync('/tmp/holdfast-pg-'), await freePort());
    cluster.own(cluster.root);
    await cluster.#initialise(options.initdb ?? []);
    cluster.configure(`
      listen_addresses = '127.0.0.1'
      port = ${cluster.port}
      unix_socket_directories = '${cluster.root}'
      fsync = off
      shared_buffers = 32MB
      max_wal_senders = 8
      max_replication_slots = 8
      max_prepared_transactions = 5
      ${options.conf ?? ''}`);
    if (options.start !== false) await cluster.start();
    return cluster;
  }

  /** A copy of a cluster that is made once for these arguments and kept for later runs: initdb is slow. */
  async #initialise(args: readonly string[]): Promise<void> {
    const key = createHash('sha256')
      .update(JSON.stringify([this.bin, this.#owner, args]))
      .digest('hex')
      .slice(0, 12);
    const template = `/tmp/holdfast-pg-template-${key}-${process.getuid?.()}`;
    if (!existsSync(template)) {
      const more = ['-U', 'postgres', '-A', 'trust', '-N', '--no-locale', '-E', 'UTF8'];
      await this.tool('initdb', ['-D', this.data, ...more, ...args]);
      const fresh = mkdtempSync('/tmp/holdfast-pg-');
      execFileSync('cp', ['-a', this.data, join(fresh, 'data')]);
      try {
        // Whoever is first wins; the template is complete from its first moment.
        renameSync(join(fresh, 'data'), template);
      } catch (error) {
        if (!existsSync(template)) throw error;
      } finally {
        rmSync(fresh, { recursive: true, force: true });
      }
      return;
    }
    execFileSync('cp', ['-a', template, this.data]);
  }

  get url(): string {
    return `postgresql://postgres@127.0.0.1:${this.port}/postgres`;
  }

  configure(lines: string): void {
    const file = join(this.data, 'postgresql.conf');
    writeFileSync(file, `${readFileSync(file, 'utf8')}\n${lines}\n`);
  }

  /** Hands a path made by the test to the server's user. */
  own(path: string): void {
    if (this.#owner !== undefined) chownSync(path, this.#owner.uid, this.#owner.gid);
  }

  async start(): Promise<void> {
    await this.tool('pg_ctl', ['-D', this.data, '-w', '-t', '60', '-l', join(this.root, 'log'), 'start']);
  }

  /** Resolves with the milliseconds that it took. */
  async stop(mode: 'fast' | 'immediate' = 'fast', timeoutSeconds = 60): Promise<number> {
    const started = performance.now();
    await this.tool('pg_ctl', ['-D', this.data, '-w', '-t', String(timeoutSeconds), '-m', mode, 'stop']);
    return performance.now() - started;
  }

  /** Runs one of PostgreSQL's programs as the servers' user and returns what it printed. */
  async tool(name: string, args: readonly string[], timeoutMs = 120_000): Promise<string> {
    const { stdout } = await run(join(this.bin, name), [...args], {
      ...this.#identity(),
      timeout: timeoutMs,
      maxBuffer: 256 * 1024 * 1024,
      // pg_ctl leaves a child that keeps inherited pipes open.
      ...(name === 'pg_ctl' ? { shell: false } : {}),
    });
    return stdout;
  }

  /** Starts a program that runs beside the test; the caller ends it. */
  spawn(name: string, args: readonly string[]) {
    return spawn(join(this.bin, name), [...args], { ...this.#identity(), stdio: 'ignore' });
  }

  async sql(statements: string, database = 'postgres'): Promise<string> {
    const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', database, '-c', statements];
    return (await this.tool('psql', [...this.#connect(), ...args])).trim();
  }

  async pgbench(args: readonly string[], database = 'postgres'): Promise<string> {
    return this.tool('pgbench', [...this.#connect(), ...args, database], 300_000);
  }

  /** Stops what runs and removes everything. */
  async destroy(): Promise<void> {
    if (existsSync(join(this.data, 'postmaster.pid'))) {
      await this.stop('immediate').catch((error: unknown) => {
        if (existsSync(join(this.data, 'postmaster.pid'))) throw error;
      });
    }
    rmSync(this.root, { recursive: true, force: true });
  }

  #connect(): string[] {
    return ['-h', '127.0.0.1', '-p', String(this.port), '-U', 'postgres'];
  }

  #identity() {
    return {
      ...(this.#owner ?? {}),
      cwd: this.root,
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', HOME: this.root },
    };
  }
}
