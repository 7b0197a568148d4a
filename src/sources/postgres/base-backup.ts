/** BASE_BACKUP of the replication protocol: options, handlers and result. */

/** What BASE_BACKUP shall send. */
export interface BaseBackupOptions {
  /** Stored by the server in backup_label. One line. */
  readonly label: string;
  /** Checkpoint at once (true) or spread over checkpoint_timeout (false, can take many minutes). */
  readonly fast: boolean;
  /** Put the WAL needed for consistency into base.tar. Default false: the caller streams it. */
  readonly wal?: boolean;
  /** Ask for a backup manifest (handed to `onManifest`). */
  readonly manifest: boolean;
  /** Rate limit in kB/s, 32 to 1048576, kept by the server. */
  readonly maxRateKb?: number;
  /** tablespace_map is in base.tar and each tablespace is an archive of its own. The only way supported. */
  readonly tablespaceMap: true;
}

export interface BaseBackupTablespace {
  /** Null for the data directory itself. */
  readonly oid: string | null;
  /** Absolute path on the server; null for the data directory itself. */
  readonly location: string | null;
  /** The server's estimate in KiB. */
  readonly sizeKb: number | null;
}

export interface BaseBackupStart {
  readonly startLsn: bigint;
  readonly timeline: number;
  /** One for each archive that will come, in that order. */
  readonly tablespaces: readonly BaseBackupTablespace[];
}

/**
 * Receives a base backup. Called strictly one after the other; a returned promise stops reading from the
 * server until it resolves (back pressure), and its rejection ends the backup and the connection.
 */
export interface BaseBackupHandlers {
  /** The checkpoint is done; before any archive. */
  onStart(info: BaseBackupStart): void;
  /** An archive begins: `base.tar` (location null) or `<oid>.tar`. Every onData until the next onArchive belongs to it. */
  onArchive(index: number, name: string, location: string | null): void | Promise<void>;
  /**
   * The next bytes of the current tar archive. The view is valid only until the call returns or the returned
   * promise resolves. Cut anywhere: a byte stream. PostgreSQL up to 14 leaves out the two zero blocks at the end.
   */
  onData(chunk: Uint8Array): void | Promise<void>;
  /** The next bytes of the manifest (JSON), after all archives; same rules as onData. */
  onManifest?(chunk: Uint8Array): void | Promise<void>;
}

export interface BaseBackupResult {
  /** WAL up to here is needed for consistency. */
  readonly stopLsn: bigint;
  readonly timeline: number;
}
