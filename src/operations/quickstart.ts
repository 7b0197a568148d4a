/**
 * The whole promise in a minute: a real PostgreSQL loses its tables and comes back to the second before, from an
 * encrypted repository, by the same operations that the commands use. Everything in one scratch folder.
 */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { inStep, noProgress } from '../core/progress.ts';
import type { Secrets } from '../core/redaction.ts';
import { formatInstant } from '../core/time.ts';
import { scratchPostgres } from '../sources/open.ts';
import type { CaptureStatus } from '../sources/source.ts';
import { backup } from './backup.ts';
import { capture } from './capture.ts';
import { init } from './init.ts';
import { type Comparison, Ledger } from './quickstart-ledger.ts';
import { type FoundPostgres, postgresForQuickstart } from './quickstart-postgres.ts';
import { prepareRestore } from './restore.ts';
import { Workspace } from './workspace.ts';

export interface QuickstartOptions {
  /** Leave the scratch folder. */
  readonly keep: boolean;
  readonly secrets: Secrets;
}

export interface QuickstartStep {
  readonly name: string;
  readonly ms: number;
  /** What it read, wrote or stored; null where that says nothing. */
  readonly bytes: number | null;
}

export interface QuickstartResult {
  readonly identical: boolean;
  readonly rowsCompared: number;
  /** The moment asked for: one second before the tables were dropped. */
  readonly restoredTo: string;
  readonly droppedAt: string;
  /** Of all accounts, in cents, after the restore. */
  readonly sum: number;
  readonly transfers: number;
  readonly postgres: string;
  readonly snapshotBytes: number;
  readonly snapshotStoredBytes: number;
  readonly logBytes: number;
  readonly steps: readonly QuickstartStep[];
  /** The scratch folder, when it was kept. */
  readonly folder: string | null;
}

const transferMs = 3_000;

/** Leaves nothing behind, however it ends, unless told to. Throws `command.proof-failed` when any row differs. */
export async function quickstart(options: QuickstartOptions, context: RunContext): Promise<QuickstartResult> {
  const postgres = await postgresForQuickstart(context);
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-quickstart-'));
  // As root, the server and its user must get through to their folder in it.
  await chmod(folder, 0o711);
  const scene = new Scene(folder, postgres, options.secrets, context);
  try {
    const result = await scene.play();
    return { ...result, folder: options.keep ? folder : null };
  } finally {
    await scene.end();
    if (!options.keep) await rm(folder, { recursive: true, force: true });
  }
}

type Played = Omit<QuickstartResult, 'folder'>;

class Scene {
  readonly #folder: string;
  readonly #postgres: FoundPostgres;
  readonly #secrets: Secrets;
  readonly #context: RunContext;
  readonly #steps: QuickstartStep[] = [];
  /** Undone in reverse order. */
  readonly #undo: (() => Promise<void>)[] = [];

  constructor(folder: string, postgres: FoundPostgres, secrets: Secrets, context: RunContext) {
    this.#folder = folder;
    this.#postgres = postgres;
    this.#secrets = secrets;
    this.#context = context;
  }

  async play(): Promise<Played> {
    const { url, client } = await this.#step('Start a PostgreSQL', () => this.#startServer());
    const ledger = new Ledger(client);
    await this.#step('Create a ledger', () => ledger.create());
    const workspace = await this.#step('Create an encrypted repository and its key kit', () =>
      this.#repository(url),
    );
    const running = await this.#step('Start capturing every change', () => this.#startCapture(workspace));
    const taken = await this.#step(
      'Take a snapshot',
      (context) => backup(workspace, { cwd: this.#folder }, context),
      ({ stats }) => stats.storedBytes,
    );
    const until = this.#context.clock.monotonic() + transferMs;
    await this.#step('Keep transferring money', () =>
      ledger.transferUntil(() => this.#context.signal.aborted || this.#context.clock.monotonic() >= until),
    );
    const dropped = await this.#step('Lose everything: DROP TABLE', () => this.#dropTables(client, running));
    const target = dropped - 1_000_000n;
    const restored = await this.#step(
      'Restore to the second before, and start it',
      (context) => this.#restore(workspace, target, context),
      ({ bytes, logBytes }) => bytes + logBytes,
    );
    const compared = await this.#step('Compare every row with our own record', () =>
      this.#compare(ledger, restored.connection),
    );
    if (!compared.identical) throw proofFailed(compared);
    return {
      identical: compared.identical,
      rowsCompared: compared.rowsCompared,
      restoredTo: formatInstant(target),
      droppedAt: formatInstant(dropped),
      sum: compared.sum,
      transfers: ledger.transfers,
      postgres: this.#postgres.version,
      snapshotBytes: taken.stats.bytes,
      snapshotStoredBytes: taken.stats.storedBytes,
      logBytes: restored.logBytes,
      steps: this.#steps,
    };
  }

  /** Stops whatever was started; the first failure is reported after all was tried. */
  async end(): Promise<void> {
    const failures: unknown[] = [];
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        failures.push(error);
      }
    }
    for (const failure of failures)
      this.#context.log.warn('Something could not be cleaned up.', { reason: String(failure) });
  }

  async #step<T>(
    name: string,
    work: (context: RunContext) => Promise<T>,
    bytes: (value: T) => number | null = () => null,
  ): Promise<T> {
    const { clock, progress } = this.#context;
    this.#context.signal.throwIfAborted();
    const started = clock.monotonic();
    const value = await inStep(progress, name, {}, (step) => work({ ...this.#context, progress: step }));
    this.#steps.push({ name, ms: Math.round(clock.monotonic() - started), bytes: bytes(value) });
    return value;
  }

  async #startServer(): Promise<{ readonly url: string; readonly client: Client }> {
    const { initScratchCluster, startServer } = await scratchPostgres();
    const { binDir } = this.#postgres;
    const { signal } = this.#context;
    const dataDir = join(this.#folder, 'server');
    await initScratchCluster({ binDir, dataDir, signal });
    const server = await startServer({ binDir, dataDir, signal });
    this.#undo.push(() => server.stop('fast'));
    return { url: server.url, client: await this.#connect(server.url) };
  }

  async #connect(url: string): Promise<Client> {
    const { default: pg } = await import('pg');
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: 10_000,
      query_timeout: 60_000,
    });
    // A server that is stopped ends its connections; whoever uses the client learns it from the next query.
    client.on('error', () => undefined);
    await client.connect();
    this.#undo.push(() => client.end());
    return client;
  }

  /** With the same configuration file that a person would write. */
  async #repository(url: string): Promise<Workspace> {
    const [config, passphrase] = [join(this.#folder, 'holdfast.yaml'), join(this.#folder, 'passphrase.txt')];
    await writeFile(passphrase, `${randomBytes(18).toString('base64url')}\n`, { mode: 0o600 });
    await writeFile(config, configuration(url));
    const workspace = await Workspace.load({ config, secrets: this.#secrets, cwd: this.#folder, env: {} });
    this.#undo.push(() => workspace.close());
    await init(workspace, { cwd: this.#folder }, { ...this.#context, progress: noProgress });
    return workspace;
  }

  async #startCapture(workspace: Workspace): Promise<RunningCapture> {
    const running = new RunningCapture(workspace, this.#context);
    this.#undo.push(() => running.end());
    await running.until((status) => status.state === 'streaming', this.#context);
    return running;
  }

  /** Returns the server's time of the drop, microseconds since 1970. */
  async #dropTables(client: Client, running: RunningCapture): Promise<bigint> {
    // The last transfer lies safely before the second that we go back to.
    await this.#context.clock.sleep(1_200, this.#context.signal);
    const before = await client.query<{ micros: string }>(
      'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros',
    );
    await client.query('DROP TABLE transfers, accounts');
    const after = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn() AS lsn');
    await running.until((status) => isDurable(running.parse, status, after.rows[0]!.lsn), this.#context);
    return BigInt(before.rows[0]!.micros);
  }

  async #restore(
    workspace: Workspace,
    target: bigint,
    context: RunContext,
  ): Promise<{ readonly connection: string; readonly bytes: number; readonly logBytes: number }> {
    const prepared = await prepareRestore(
      workspace,
      {
        target: { kind: 'time', time: target },
        to: join(this.#folder, 'restored'),
        cwd: this.#folder,
        start: true,
        programs: [this.#postgres.binDir],
      },
      context,
    );
    const { server, bytes, logBytes } = await prepared.execute(context);
    if (server === null) throw new HoldfastError('system.internal', 'The restored server was not started.');
    this.#undo.push(() => stopServer(server.pid, this.#context));
    return { connection: server.connection, bytes, logBytes };
  }

  async #compare(ledger: Ledger, connection: string): Promise<Comparison> {
    return await ledger.compare(await this.#connect(connection));
  }
}

function configuration(url: string): string {
  return `repository: ./repository
state: ./state
key:
  passphraseFile: ./passphrase.txt
sources:
  ledger:
    kind: postgres
    url: ${JSON.stringify(url)}
`;
}

function isDurable(parse: (text: string) => string, status: CaptureStatus, lsn: string): boolean {
  return status.durable !== null && parse(status.durable) >= parse(lsn);
}

function proofFailed(compared: Comparison): HoldfastError {
  const why = compared.difference ?? `the accounts sum up to ${compared.sum} cents instead of 0`;
  return new HoldfastError(
    'command.proof-failed',
    `The restored ledger is not the one that was lost: ${why}.`,
  );
}

/** A capture beside the rest; its failure ends whoever waits for it. */
class RunningCapture {
  readonly parse: (text: string) => string;
  readonly #stop = new AbortController();
  readonly #done: Promise<unknown>;
  #status: CaptureStatus | undefined;
  #failure: unknown;

  constructor(workspace: Workspace, context: RunContext) {
    this.parse = workspace.kind(workspace.sourceSettings().kind).positions.parse;
    const signal = AbortSignal.any([this.#stop.signal, context.signal]);
    const quiet = { ...context, signal, progress: noProgress };
    const onStatus = (status: CaptureStatus): void => {
      this.#status = status;
    };
    this.#done = capture(workspace, { onStatus }, quiet).catch((error: unknown) => {
      this.#failure = error;
    });
  }

  /** Waits until the capture's state is as wanted; rejects when the capture ended or half a minute passed. */
  async until(wanted: (status: CaptureStatus) => boolean, { clock, signal }: RunContext): Promise<void> {
    const deadline = clock.monotonic() + 30_000;
    while (this.#status === undefined || !wanted(this.#status)) {
      if (this.#failure !== undefined) throw this.#failure;
      if (clock.monotonic() > deadline) {
        throw new HoldfastError('net.timeout', 'The capture did not keep up within 30 seconds.');
      }
      await clock.sleep(20, signal);
    }
  }

  async end(): Promise<void> {
    this.#stop.abort(new HoldfastError('system.interrupted', 'The capture was told to end.'));
    await this.#done;
  }
}

/** Ends a server in good order and waits; a server that does not end in half a minute is killed. */
async function stopServer(pid: number, { clock }: RunContext): Promise<void> {
  const deadline = clock.monotonic() + 30_000;
  for (
    let signal: NodeJS.Signals | 0 = 'SIGINT';
    isAlive(pid, signal);
    signal = clock.monotonic() > deadline ? 'SIGKILL' : 0
  ) {
    await clock.sleep(50);
  }
}

function isAlive(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    // ESRCH: it has ended.
    return false;
  }
}
