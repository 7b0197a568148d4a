/** One connection to a PostgreSQL server, plain or for replication, over the wire protocol 3.0. */
import { HoldfastError } from '../../core/errors.ts';
import {
  BaseBackup,
  type BaseBackupHandlers,
  type BaseBackupOptions,
  type BaseBackupResult,
  baseBackupCommand,
} from './base-backup.ts';
import type { ConnectionSettings } from './connection.ts';
import { protocolError, queryMessage } from './messages.ts';
import { parseLsn } from './position.ts';
import {
  PhysicalStream,
  type ReplicationHandlers,
  type ReplicationOptions,
  type ReplicationStream,
  slotName,
} from './replication-stream.ts';
import { type RawResult, ResultCollector } from './result-collector.ts';
import { Session } from './session.ts';

export type {
  BaseBackupHandlers,
  BaseBackupOptions,
  BaseBackupResult,
  BaseBackupStart,
  BaseBackupTablespace,
} from './base-backup.ts';
export type {
  ReplicationHandlers,
  ReplicationOptions,
  ReplicationStatus,
  ReplicationStream,
  TimelineEnd,
} from './replication-stream.ts';

export interface QueryResult {
  readonly columns: readonly string[];
  /** Values as the server prints them. */
  readonly rows: readonly (readonly (string | null)[])[];
  /** The command tag, e.g. `SELECT 3`. */
  readonly tag: string;
}

export interface QueryOptions {
  /** Aborting cancels the statement on the server; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Default 60,000. Then the statement is cancelled and `net.timeout` thrown. */
  readonly timeoutMs?: number;
}

export interface ConnectOptions {
  /** Connect for physical replication (BASE_BACKUP, START_REPLICATION). Default false. */
  readonly replication?: boolean;
  /** Aborting it terminates the connection, also later on. */
  readonly signal?: AbortSignal;
  /** Instead of the settings' database. */
  readonly database?: string;
}

export interface SystemIdentity {
  readonly systemId: string;
  readonly timeline: number;
  /** Flushed so far. */
  readonly xlogpos: bigint;
  readonly database: string | null;
}

const defaultTimeoutMs = 60_000;
/** checkpoint_timeout, over which a checkpoint that is not fast is spread, can be a day. */
const fastCheckpointMs = 60 * 60_000;
const spreadCheckpointMs = 25 * 60 * 60_000;
/** A disk that the server reads from can hang for minutes; the data that follows the checkpoint comes steadily. */
const dataStallMs = 10 * 60_000;

/**
 * One command at a time; further ones wait for their turn. Every method rejects with the server's refusal
 * (`postgres.…`, SQLSTATE in the details), `net.unreachable` once the connection is lost, `net.timeout`, or the
 * signal's reason. After a lost connection nothing works any more: connect again.
 */
export class PostgresConnection {
  /** As server_version_num gives it: 150018 is 15.18. */
  readonly serverVersion: number;
  /** What the server reported: server_version, TimeZone, … Kept up to date. */
  readonly parameters: ReadonlyMap<string, string>;

  readonly #session: Session;
  readonly #settings: ConnectionSettings;
  readonly #replication: boolean;
  #release: () => void = () => undefined;

  private constructor(session: Session, settings: ConnectionSettings, replication: boolean) {
    this.#session = session;
    this.#settings = settings;
    this.#replication = replication;
    this.parameters = session.parameters;
    this.serverVersion = versionOf(session);
  }

  /**
   * Connects and logs in within the settings' connect time-out. Throws `net.unreachable`, `net.timeout`, `net.tls`,
   * `postgres.authentication-failed`, `postgres.not-admitted`, `postgres.no-replication-right`, `postgres.pooler`,
   * `postgres.too-many-connections`, `postgres.not-ready`, `postgres.unsupported-version` and the like.
   */
  static async connect(
    settings: ConnectionSettings,
    options: ConnectOptions = {},
  ): Promise<PostgresConnection> {
    const { signal, replication = false, database = settings.database } = options;
    const session = await Session.open(settings, { database, replication, signal });
    try {
      const connection = new PostgresConnection(session, settings, replication);
      connection.#obey(signal);
      return connection;
    } catch (error) {
      session.fail(error);
      throw error;
    }
  }

  /** True when encrypted by TLS. */
  get secure(): boolean {
    return this.#session.secure;
  }

  /** The address without secrets. */
  describe(): string {
    return this.#session.to.address;
  }

  /** True once lost, unused for the settings' idleTimeout, or older than maxAge: replace it before the next use. */
  get isStale(): boolean {
    const now = performance.now();
    const { idleTimeoutMs, maxAgeMs } = this.#settings;
    return (
      this.#session.over !== undefined ||
      now - this.#session.lastUsedAt > idleTimeoutMs ||
      now - this.#session.openedAt > maxAgeMs
    );
  }

  /** Simple protocol; several statements may be given at once, the last result set is returned. */
  async query(sql: string, options: QueryOptions = {}): Promise<QueryResult> {
    const results = await this.queryAll(sql, options);
    return results.at(-1) ?? { columns: [], rows: [], tag: '' };
  }

  /** One result for each statement. At most 64 MiB in all. */
  async queryAll(sql: string, options: QueryOptions = {}): Promise<QueryResult[]> {
    const results = await this.#raw(sql, options);
    return results.map(({ columns, rows, tag }) => ({
      columns,
      rows: rows.map((row) => row.map((value) => value?.toString('utf8') ?? null)),
      tag,
    }));
  }

  /** Rows by column name. */
  async rows(sql: string, options: QueryOptions = {}): Promise<Record<string, string | null>[]> {
    const { columns, rows } = await this.query(sql, options);
    return rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index] ?? null])));
  }

  /**
   * True when something between us and the server shares connections: it made up the process id that it told
   * us. Only on a plain connection; for replication PgBouncer up to 1.22 refuses, and later ones connect through.
   */
  async isPooled(options: QueryOptions = {}): Promise<boolean> {
    const { rows } = await this.query('SELECT pg_catalog.pg_backend_pid()', options);
    return Number(rows[0]?.[0]) !== this.#session.backendPid;
  }

  /** IDENTIFY_SYSTEM. Replication connections only. */
  async identifySystem(options: QueryOptions = {}): Promise<SystemIdentity> {
    this.#needReplication('IDENTIFY_SYSTEM');
    const [row] = await this.rows('IDENTIFY_SYSTEM', options);
    if (!row?.systemid || !row.timeline || !row.xlogpos)
      throw protocolError('IDENTIFY_SYSTEM has no readable answer');
    return {
      systemId: row.systemid,
      timeline: Number(row.timeline),
      xlogpos: parseLsn(row.xlogpos),
      database: row.dbname ?? null,
    };
  }

  /** TIMELINE_HISTORY, byte for byte. Replication connections only; the first timeline has none. */
  async timelineHistory(
    timeline: number,
    options: QueryOptions = {},
  ): Promise<{ filename: string; content: Uint8Array }> {
    this.#needReplication('TIMELINE_HISTORY');
    const results = await this.#raw(`TIMELINE_HISTORY ${wholeTimeline(timeline)}`, options);
    const [filename, content] = results.at(-1)?.rows[0] ?? [];
    if (!filename || !content) throw protocolError('TIMELINE_HISTORY has no readable answer');
    return { filename: filename.toString('latin1'), content: new Uint8Array(content) };
  }

  /**
   * CREATE_REPLICATION_SLOT. `reserveWal`: WAL is kept from now on, not from the first streaming on. A temporary
   * slot goes with this connection. Throws `postgres.slot-exists`. Replication connections only.
   */
  async createPhysicalSlot(
    name: string,
    slot: { readonly temporary: boolean; readonly reserveWal: boolean },
    options: QueryOptions = {},
  ): Promise<void> {
    this.#needReplication('CREATE_REPLICATION_SLOT');
    const words = `${slot.temporary ? 'TEMPORARY ' : ''}PHYSICAL${slot.reserveWal ? ' RESERVE_WAL' : ''}`;
    await this.query(`CREATE_REPLICATION_SLOT ${slotName(name)} ${words}`, options);
  }

  /**
   * BASE_BACKUP. Never waits for WAL archiving: the caller streams the WAL from startLsn to stopLsn, or asks for
   * `wal`. Aborting cuts the connection (the server notices and ends the backup). Replication connections only.
   */
  async baseBackup(
    options: BaseBackupOptions,
    handlers: BaseBackupHandlers,
    signal: AbortSignal,
  ): Promise<BaseBackupResult> {
    this.#needReplication('BASE_BACKUP');
    const backup = new BaseBackup(options, handlers, this.serverVersion);
    const command = queryMessage(baseBackupCommand(options, this.serverVersion));
    const checkpointMs = options.fast ? fastCheckpointMs : spreadCheckpointMs;
    const stallMs = () => (backup.started ? dataStallMs : checkpointMs);
    await this.#session.run(command, backup, { signal, cut: true, stallMs });
    return backup.finish();
  }

  /**
   * START_REPLICATION. The caller reports with `status` at least every wal_sender_timeout / 2 and whenever
   * asked. Silence for 60 s counts as a lost connection. Refusals (`postgres.slot-missing`, `postgres.slot-in-use`,
   * `postgres.wal-removed`) come out of `ended`. Replication connections only.
   */
  startReplication(
    options: ReplicationOptions,
    handlers: ReplicationHandlers,
    signal: AbortSignal,
  ): ReplicationStream {
    this.#needReplication('START_REPLICATION');
    wholeTimeline(options.timeline);
    return new PhysicalStream(this.#session, options, handlers, signal);
  }

  /** Waits for a running command (at most 5 s), says goodbye and closes. Idempotent, never rejects. */
  async close(): Promise<void> {
    this.#release();
    await this.#session.close();
  }

  /** Cuts the connection at once; whatever runs rejects. Idempotent. */
  terminate(): void {
    this.#release();
    this.#session.fail(
      new HoldfastError('net.unreachable', `The connection to ${this.describe()} was cut on request.`),
    );
  }

  async #raw(sql: string, options: QueryOptions): Promise<RawResult[]> {
    const collector = new ResultCollector();
    const { signal, timeoutMs = defaultTimeoutMs } = options;
    await this.#session.run(queryMessage(sql), collector, { signal, timeoutMs });
    return collector.results;
  }

  #obey(signal: AbortSignal | undefined): void {
    if (signal === undefined) return;
    const onAbort = () => this.#session.fail(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#release = () => signal.removeEventListener('abort', onAbort);
    if (signal.aborted) throw signal.reason;
  }

  #needReplication(command: string): void {
    if (this.#replication) return;
    throw new HoldfastError(
      'system.internal',
      `${command} was asked of a connection that is not for replication.`,
    );
  }
}

function versionOf(session: Session): number {
  const text = session.parameters.get('server_version') ?? '';
  if (/bouncer/i.test(text)) {
    throw new HoldfastError(
      'postgres.pooler',
      `${session.to.address} is PgBouncer's own console, not PostgreSQL.`,
    );
  }
  const match = /^(\d+)(?:\.(\d+))?/.exec(text);
  if (!match) throw protocolError('it tells no version');
  const major = Number(match[1]);
  if (major < 13 || major > 18) {
    throw new HoldfastError(
      'postgres.unsupported-version',
      `PostgreSQL at ${session.to.address} is of version ${text}; Holdfast supports 13 to 18.`,
      { details: { address: session.to.address, version: text } },
    );
  }
  return major * 10_000 + Number(match[2] ?? 0);
}

function wholeTimeline(timeline: number): number {
  if (Number.isInteger(timeline) && timeline >= 1 && timeline <= 0xffffffff) return timeline;
  throw new HoldfastError('command.usage', `${timeline} is not a timeline of PostgreSQL.`);
}
