/**
 * A supervised recovery: starts the restored server, brings it the log piece by piece, watches it replay, and
 * proves that it ended where the plan says.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client } from 'pg';
import type { RunContext } from '../../core/context.ts';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../../core/errors.ts';
import { inStep, type Step } from '../../core/progress.ts';
import type { StopAt } from '../source.ts';
import type { Binaries } from './binaries.ts';
import { formatLsn, historyName, parseHistory, parseSegmentName } from './position.ts';
import { checkReached } from './reached-position.ts';
import { connectScratch } from './scratch-connection.ts';
import { launchServer, type ScratchServer } from './server.ts';
import type { ServerUser } from './server-user.ts';
import type { SnapshotMeta } from './snapshot-meta.ts';

export interface RecoveryRunOptions {
  readonly binaries: Binaries;
  readonly to: string;
  readonly meta: SnapshotMeta;
  readonly owner: ServerUser | undefined;
  readonly access: { readonly socketDir: string; readonly port: number };
  readonly logFile: string;
  /** The spool's folder. */
  readonly walFolder: string;
  readonly stop: StopAt;
  /** Where the first record begins that must not be replayed; undefined where the log did not tell. */
  readonly exact: bigint | undefined;
  /** Where the log that was given ends with a whole record; null where unknown. */
  readonly logEnd: bigint | null;
  /** What will be replayed, for the progress. */
  readonly from: bigint;
  readonly until: bigint;
  /** Fills the spool, asking `gate` before each segment. Resolves when all is there. */
  readonly feed: (gate: (name: string) => Promise<void>, signal: AbortSignal) => Promise<void>;
}

export interface Recovered {
  readonly server: ScratchServer;
  readonly reached: bigint;
  readonly timeline: number;
  readonly warnings: readonly string[];
}

/** Without any progress for so long, a recovery is given up. One record can take minutes (a large database dropped). */
const stallMs = 15 * 60_000;

/** Rejects with what stopped it, after the server has been stopped. The server outlives this process. */
export async function runRecovery(options: RecoveryRunOptions, context: RunContext): Promise<Recovered> {
  return inStep(
    context.progress,
    'Replay the log',
    { total: Number(options.until - options.from) },
    async (step) => {
      const ended = new AbortController();
      const signal = AbortSignal.any([context.signal, ended.signal]);
      const watch = new ReplayWatch(options, step);
      const server = await launchServer({
        binDir: options.binaries.binDir,
        dataDir: options.to,
        user: options.owner,
        superuser: options.meta.superuser,
        access: options.access,
        logFile: options.logFile,
        detached: true,
        onLog: (line) => {
          watch.alive();
          context.log.debug('server', { line });
        },
        signal: context.signal,
      });
      let feeding: Promise<void> | undefined;
      try {
        feeding = options.feed((name) => watch.gate(name, signal), signal);
        const fed = feeding.then(() => writeFile(join(options.walFolder, 'complete'), ''));
        await untilPromoted(server, watch, fed, signal, ended);
        ended.abort(new Error('The server has ended its recovery.'));
        await feeding.catch(ignoreAbort(signal));
        return { server, ...(await inspect(server, options)) };
      } catch (error) {
        ended.abort(new Error('The recovery has failed.'));
        await server.stop('immediate');
        const fault = await feeding?.then(
          () => undefined,
          (reason: unknown) => reason,
        );
        context.signal.throwIfAborted();
        throw await explain(error, fault, server, signal);
      } finally {
        watch.end();
      }
    },
  );
}

async function untilPromoted(
  server: ScratchServer,
  watch: ReplayWatch,
  fed: Promise<void>,
  signal: AbortSignal,
  ended: AbortController,
): Promise<void> {
  const ready = server.ready({ signal, deadlineMs: Number.MAX_SAFE_INTEGER });
  // Only the feed's failure ends the wait; its success means that the server has all it needs.
  const unfed = new Promise<never>((_, reject) => fed.catch(reject));
  try {
    await Promise.race([ready, unfed, watch.stalled(signal)]);
  } catch (error) {
    ended.abort(error);
    await ready.catch(() => undefined);
    throw error;
  }
}

function ignoreAbort(signal: AbortSignal): (error: unknown) => void {
  return (error) => {
    // The server had all that it wanted before everything was there; whatever the feed met later does not matter.
    if (!signal.aborted) throw error;
  };
}

/** Tells apart why a recovery failed. */
async function explain(
  error: unknown,
  fault: unknown,
  server: ScratchServer,
  signal: AbortSignal,
): Promise<unknown> {
  if (fault !== undefined && fault !== signal.reason) return fault;
  if (isHoldfastError(error) && error.code !== 'postgres.server-failed') return error;
  const tail = await server.logTail(12);
  const log = tail.join('\n');
  const words = tail.length === 0 ? '' : ` The server's last words:\n  ${tail.slice(-6).join('\n  ')}`;
  const details = { dataDir: server.dataDir, log: tail };
  const lacking =
    /recovery ended before configured recovery target|WAL ends before|could not locate (a valid|required) checkpoint|requested (WAL segment|timeline)|recovery target timeline \d+ does not exist/;
  if (lacking.test(log)) {
    return new HoldfastError(
      'recovery.wal-missing',
      `The log that was given does not lead to the moment asked for.${words}`,
      { cause: error, details },
    );
  }
  if (isHoldfastError(error)) {
    return new HoldfastError(
      'recovery.server-failed',
      `The restored server did not finish its recovery.${words}`,
      {
        cause: error,
        details,
      },
    );
  }
  return error;
}

/** Knows by the server's requests how far it is, and holds the spool to a few segments ahead of that. */
class ReplayWatch {
  readonly #options: RecoveryRunOptions;
  readonly #step: Step;
  readonly #published: string[] = [];
  readonly #window: number;
  readonly #timer: NodeJS.Timeout;
  #wanted = 0;
  #gone = 0;
  #done = 0n;
  #lastSign = performance.now();
  #reading = false;
  /** Rejects with the first thing that went wrong with looking: without it the spool is neither filled nor emptied. */
  readonly #blind = Promise.withResolvers<never>();

  constructor(options: RecoveryRunOptions, step: Step) {
    this.#options = options;
    this.#step = step;
    this.#window = Math.max(behind + 3, Math.min(64, Math.floor(windowBytes / options.meta.walSegmentSize)));
    // Nobody may be waiting yet, or any more.
    this.#blind.promise.catch(() => undefined);
    this.#timer = setInterval(() => void this.#look(), 100);
  }

  /** Any sign of life of the server. */
  alive(): void {
    this.#lastSign = performance.now();
  }

  async gate(name: string, signal: AbortSignal): Promise<void> {
    while (this.#published.length - this.#wanted >= this.#window) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#published.push(name);
  }

  /** Rejects when nothing has moved for too long, or at once when the spool cannot be looked after. */
  stalled(signal: AbortSignal): Promise<never> {
    return Promise.race([this.#blind.promise, this.#unmoved(signal)]);
  }

  async #unmoved(signal: AbortSignal): Promise<never> {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 1000).unref());
      signal.throwIfAborted();
      if (performance.now() - this.#lastSign < stallMs) continue;
      throw new HoldfastError(
        'recovery.server-failed',
        `The restored server has not moved for ${stallMs / 60_000} minutes while it replayed ${this.#published[this.#wanted] ?? 'the log'}.`,
      );
    }
  }

  end(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      await this.#read();
    } catch (error) {
      this.end();
      this.#blind.reject(spoolError(error, this.#options.walFolder));
    } finally {
      this.#reading = false;
    }
  }

  async #read(): Promise<void> {
    let name: string;
    try {
      name = (await readFile(join(this.#options.walFolder, 'wanted'), 'utf8')).trim();
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      throw error;
    }
    const index = this.#published.lastIndexOf(name);
    if (index <= this.#wanted) return;
    this.#wanted = index;
    this.alive();
    const at = parseSegmentName(name, this.#options.meta.walSegmentSize)?.lsn ?? 0n;
    const done = at < this.#options.from ? 0n : at - this.#options.from;
    if (done > this.#done) this.#step.advance(Number(done - this.#done));
    this.#done = done > this.#done ? done : this.#done;
    while (this.#gone < this.#wanted - behind) await this.#forget(this.#published[this.#gone++]!);
  }

  async #forget(name: string): Promise<void> {
    const path = join(this.#options.walFolder, name);
    // First the sign that it was there: its absence must never look like the end of the log.
    await writeFile(`${path}.gone`, '');
    await rm(path, { force: true });
  }
}

function spoolError(error: unknown, folder: string): unknown {
  const code = systemErrorCode(error);
  if (code === undefined) return error;
  const said = `The log that is being replayed could not be managed in ${folder} (${code}); the restored server was stopped.`;
  return new HoldfastError(code === 'ENOSPC' ? 'system.disk-full' : 'system.file-failed', said, {
    cause: error,
  });
}

/** Segments that are kept behind the one being replayed: PostgreSQL reads the last ones again at the end. */
const behind = 3;
const windowBytes = 256 * 1024 * 1024;

/** Connects to a database that every cluster has. */
export async function connectAny(server: ScratchServer, signal: AbortSignal | undefined): Promise<Client> {
  try {
    return await connectScratch(server.connection, { timeoutMs: 30_000, signal });
  } catch (error) {
    if (systemErrorCode(error) !== '3D000') throw error;
    return connectScratch({ ...server.connection, database: 'template1' }, { timeoutMs: 30_000, signal });
  }
}

async function inspect(
  server: ScratchServer,
  options: RecoveryRunOptions,
): Promise<{ reached: bigint; timeline: number; warnings: string[] }> {
  const client = await connectAny(server, undefined);
  try {
    const { rows } = await client.query<{ recovering: boolean; segment: string | null }>(
      `SELECT pg_is_in_recovery() AS recovering,
              CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END AS segment`,
    );
    const timeline = Number.parseInt(rows[0]?.segment?.slice(0, 8) ?? '', 16);
    const history = await readHistory(options.to, timeline);
    const last = history.at(-1);
    if (rows[0]?.recovering !== false || last === undefined) {
      throw new HoldfastError(
        'recovery.wrong-position',
        'The restored server did not begin a history of its own.',
      );
    }
    checkReached(options.stop, {
      lsn: last.lsn,
      end: options.logEnd,
      exact: options.exact ?? null,
      segmentSize: options.meta.walSegmentSize,
    });
    await client.query('CHECKPOINT');
    return { reached: last.lsn, timeline, warnings: await findings(client, options.meta) };
  } finally {
    await client.end();
  }
}

async function readHistory(to: string, timeline: number): Promise<ReturnType<typeof parseHistory>> {
  if (!(timeline > 1)) return [];
  return parseHistory(await readFile(join(to, 'pg_wal', historyName(timeline)), 'utf8'));
}

/** What a person should know before the restored server is used. */
async function findings(client: Client, meta: SnapshotMeta): Promise<string[]> {
  const warnings: string[] = [];
  const prepared = await client.query<{ gid: string; database: string }>(
    'SELECT gid, database FROM pg_prepared_xacts ORDER BY prepared',
  );
  for (const { gid, database } of prepared.rows) {
    const name = gid.replaceAll("'", "''");
    warnings.push(
      `The prepared transaction '${gid}' in the database ${database} is open and holds its locks: COMMIT PREPARED '${name}' or ROLLBACK PREPARED '${name}' in that database.`,
    );
  }
  if (meta.version >= 150_000) {
    const changed = await client.query<{ datname: string }>(
      `SELECT datname FROM pg_database
       WHERE datcollversion IS NOT NULL AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)`,
    );
    for (const { datname } of changed.rows) {
      warnings.push(
        `The database ${datname} was made with another version of this machine's collation: REINDEX its text indexes (REINDEX DATABASE "${datname.replaceAll('"', '""')}") before relying on them.`,
      );
    }
  }
  return warnings;
}

/** For messages. */
export function describeReached(recovered: Recovered): string {
  return `${formatLsn(recovered.reached)}, timeline ${recovered.timeline}`;
}
