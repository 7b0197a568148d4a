/** A real server, a folder, and `bin/holdfast` as a person runs it. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { postgresBinaries } from '../../scripts/rig.ts';
import { initScratchCluster, type ScratchServer, startServer } from '../../src/sources/postgres/server.ts';

export const holdfast = resolve(import.meta.dirname, '../../bin/holdfast');
export const passphrase = 'correct horse battery staple';

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as JSON; throws when it is not exactly one document. */
  json(): Document;
}

export interface Document {
  readonly schema: number;
  readonly command: string;
  // biome-ignore lint/suspicious/noExplicitAny: documents of many shapes; what a test expects of one is its check.
  readonly result?: any;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly error?: any;
}

export interface RunOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts `bin/holdfast` with nothing of our own environment but PATH. */
export function start(
  args: readonly string[],
  { cwd, env }: RunOptions,
  stdio: StdioOptions = ['ignore', 'pipe', 'pipe'],
): ChildProcess {
  const clean = { PATH: process.env.PATH ?? '', HOME: cwd, HOLDFAST_STATE: join(cwd, 'state'), ...env };
  return spawn(holdfast, [...args], { cwd, env: clean, stdio });
}

export async function run(args: readonly string[], options: RunOptions): Promise<Ran> {
  return await finished(start(args, options));
}

export async function finished(child: ChildProcess): Promise<Ran> {
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const status = await new Promise<number | null>((done, failed) => {
    child.once('error', failed);
    child.once('close', done);
  });
  return { status, stdout, stderr, json: () => JSON.parse(stdout) };
}

/** Waits until `child` has written `text` to standard error. */
export async function says(child: ChildProcess, text: string | RegExp): Promise<void> {
  let heard = '';
  await new Promise<void>((done, failed) => {
    const deadline = setTimeout(() => failed(new Error(`waited for ${text}, heard: ${heard}`)), 30_000);
    child.stderr?.on('data', (chunk: Buffer) => {
      heard += chunk.toString();
      if (typeof text === 'string' ? heard.includes(text) : text.test(heard)) {
        clearTimeout(deadline);
        done();
      }
    });
    child.once('close', () => failed(new Error(`ended before it said ${text}: ${heard}`)));
  });
}

export class Scene {
  readonly folder: string;
  readonly server: ScratchServer;
  readonly #clients: pg.Client[] = [];

  private constructor(folder: string, server: ScratchServer) {
    this.folder = folder;
    this.server = server;
  }

  static async open(): Promise<Scene> {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-e2e-'));
    await chmod(folder, 0o711);
    const { binDir } = await postgresBinaries(15);
    const dataDir = join(folder, 'server');
    await initScratchCluster({ binDir, dataDir });
    return new Scene(folder, await startServer({ binDir, dataDir }));
  }

  /** A folder with a holdfast.yaml and a passphrase. */
  async configure(name: string, more = ''): Promise<RunOptions> {
    const cwd = join(this.folder, name);
    await mkdir(cwd, { mode: 0o711 });
    await writeFile(join(cwd, 'passphrase.txt'), `${passphrase}\n`, { mode: 0o600 });
    await writeFile(
      join(cwd, 'holdfast.yaml'),
      `repository: ./repository\nkey: { passphraseFile: passphrase.txt }\nsources:\n  app:\n    kind: postgres\n    url: ${JSON.stringify(this.server.url)}\n${more}`,
    );
    return { cwd };
  }

  async query<T extends pg.QueryResultRow = Record<string, unknown>>(sql: string): Promise<T[]> {
    const client = await this.#client();
    const result = await client.query<T>(sql);
    return result.rows;
  }

  async #client(): Promise<pg.Client> {
    const there = this.#clients[0];
    if (there !== undefined) return there;
    const client = new pg.Client({ connectionString: this.server.url });
    client.on('error', () => undefined);
    await client.connect();
    this.#clients.push(client);
    return client;
  }

  /** Lets go of our own connections, so that the server can be stopped. */
  async disconnect(): Promise<void> {
    for (const client of this.#clients.splice(0)) await client.end();
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.end();
    await this.server.stop('immediate');
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Queries a restored server by the connection that `restore --start` printed. */
export async function queryAt<T extends pg.QueryResultRow>(connection: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: connection });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}
