/** One connection to a PostgreSQL server, plain or for replication, over the wire protocol 3.0. */
import type { BaseBackupHandlers, BaseBackupOptions, BaseBackupResult } from './base-backup.ts';
import type { ConnectionSettings } from './connection.ts';
import type { ReplicationHandlers, ReplicationOptions, ReplicationStream } from './replication-stream.ts';

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

/** One command at a time; further ones wait for their turn. */
export class PostgresConnection {
  /** As server_version_num gives it: 150018 is 15.18. */
  declare readonly serverVersion: number;
  /** What the server reported: server_version, TimeZone, … */
  declare readonly parameters: ReadonlyMap<string, string>;

  declare static connect: (settings: ConnectionSettings, options?: ConnectOptions) => Promise<PostgresConnection>;
  /** Simple protocol; the last result set. */
  declare query: (sql: string, options?: QueryOptions) => Promise<QueryResult>;
  declare queryAll: (sql: string, options?: QueryOptions) => Promise<QueryResult[]>;
  /** Rows by column name. */
  declare rows: (sql: string, options?: QueryOptions) => Promise<Record<string, string | null>[]>;
  declare identifySystem: () => Promise<SystemIdentity>;
  declare timelineHistory: (timeline: number) => Promise<{ filename: string; content: Uint8Array }>;
  declare createPhysicalSlot: (
    name: string,
    options: { temporary: boolean; reserveWal: boolean },
  ) => Promise<void>;
  declare baseBackup: (
    options: BaseBackupOptions,
    handlers: BaseBackupHandlers,
    signal: AbortSignal,
  ) => Promise<BaseBackupResult>;
  declare startReplication: (
    options: ReplicationOptions,
    handlers: ReplicationHandlers,
    signal: AbortSignal,
  ) => ReplicationStream;
  /** Says goodbye and closes; waits for a running command. Idempotent. */
  declare close: () => Promise<void>;
  /** Cuts the connection at once; whatever runs rejects. Idempotent. */
  declare terminate: () => void;
}
