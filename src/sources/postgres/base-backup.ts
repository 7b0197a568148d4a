/** BASE_BACKUP of the replication protocol (PostgreSQL documentation, "Streaming Replication Protocol"). */
import { HoldfastError } from '../../core/errors.ts';
import { BodyReader, protocolError, readRow, serverMessage } from './messages.ts';
import { parseLsn } from './position.ts';
import type { Exchange } from './session.ts';

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
  /**
   * Everything came and the backup has its end. The server may still refuse after this: it reports damaged
   * pages (SQLSTATE XX001) last.
   */
  onStop?(result: BaseBackupResult): void;
}

export interface BaseBackupResult {
  /** WAL up to here is needed for consistency. */
  readonly stopLsn: bigint;
  readonly timeline: number;
}

/** The command in the grammar of the server's version: a bare list up to 14, parentheses from 15 on. */
export function baseBackupCommand(options: BaseBackupOptions, serverVersion: number): string {
  // The server takes any text and would write a backup_label that it cannot read back.
  if (!/^[^\r\n\0]{1,1000}$/.test(options.label)) {
    throw new HoldfastError(
      'command.usage',
      'The label of a base backup must be one line of at most 1000 letters.',
    );
  }
  const label = `LABEL '${options.label.replaceAll("'", "''")}'`;
  const rate = options.maxRateKb === undefined ? undefined : `MAX_RATE ${rateOf(options.maxRateKb)}`;
  const manifest = options.manifest ? "MANIFEST 'yes'" : undefined;
  const wal = options.wal ? 'WAL' : undefined;
  // Never wait for archiving: the WAL that makes the backup consistent is streamed, or in base.tar.
  const words =
    serverVersion < 150_000
      ? [
          label,
          'PROGRESS',
          options.fast ? 'FAST' : undefined,
          wal,
          'NOWAIT',
          rate,
          'TABLESPACE_MAP',
          manifest,
        ]
      : [
          label,
          'PROGRESS',
          options.fast && "CHECKPOINT 'fast'",
          wal,
          'WAIT 0',
          rate,
          'TABLESPACE_MAP',
          manifest,
        ];
  const list = words.filter((word) => typeof word === 'string');
  return serverVersion < 150_000 ? `BASE_BACKUP ${list.join(' ')}` : `BASE_BACKUP (${list.join(', ')})`;
}

function rateOf(kb: number): number {
  if (Number.isInteger(kb) && kb >= 32 && kb <= 1_048_576) return kb;
  throw new HoldfastError(
    'command.usage',
    `A rate limit of ${kb} kB/s is not possible: PostgreSQL takes 32 to 1048576.`,
  );
}

/** Kinds of CopyData from 15 on. */
const part = { archive: 0x6e, manifest: 0x6d, data: 0x64, progress: 0x70 } as const;
/** Longest announcement of an archive: its name and a path. */
const longestAnnouncement = 16 * 1024;

/** Follows one BASE_BACKUP through its result sets and copies. */
export class BaseBackup implements Exchange {
  readonly #handlers: BaseBackupHandlers;
  readonly #manifest: boolean;
  /** Up to 14 each archive is a copy of its own, and a message is all data. */
  readonly #perArchive: boolean;
  #results = 0;
  #rows: (string | null)[][] = [];
  #begin: { readonly lsn: bigint; readonly timeline: number } | undefined;
  #start: BaseBackupStart | undefined;
  #result: BaseBackupResult | undefined;
  #archives = 0;
  #into: 'nothing' | 'archive' | 'manifest' = 'nothing';
  #kind = 0;
  #announced: Buffer[] = [];
  #announcedBytes = 0;

  constructor(options: BaseBackupOptions, handlers: BaseBackupHandlers, serverVersion: number) {
    this.#handlers = handlers;
    this.#manifest = options.manifest;
    this.#perArchive = serverVersion < 150_000;
  }

  /** True once the checkpoint is done and data can be expected without a long wait. */
  get started(): boolean {
    return this.#start !== undefined;
  }

  /** Once the exchange is over. Throws `postgres.protocol` when not everything came. */
  finish(): BaseBackupResult {
    if (this.#start === undefined || this.#result === undefined)
      throw protocolError('the base backup has no end');
    if (this.#archives !== this.#start.tablespaces.length) {
      throw protocolError(
        `the base backup has ${this.#archives} archives in place of ${this.#start.tablespaces.length}`,
      );
    }
    if (this.#manifest && this.#into !== 'manifest') throw protocolError('the base backup has no manifest');
    return this.#result;
  }

  message(type: number, body: Buffer): void | Promise<void> {
    switch (type) {
      case serverMessage.rowDescription:
        this.#rows = [];
        return;
      case serverMessage.dataRow:
        this.#rows.push(readRow(body).map((value) => value?.toString('utf8') ?? null));
        return;
      case serverMessage.commandComplete:
        return this.#resultComplete();
      case serverMessage.copyOut:
        return this.#perArchive ? this.#nextCopy() : undefined;
      case serverMessage.copyDone:
      case serverMessage.readyForQuery:
        return;
    }
    throw protocolError('an unknown message came within a base backup');
  }

  copy(piece: Buffer, first: boolean, last: boolean): void | Promise<void> {
    if (this.#perArchive) return this.#data(piece);
    if (first) {
      if (piece.length === 0) throw protocolError('an empty message came within a base backup');
      this.#kind = piece[0]!;
    }
    const rest = first ? piece.subarray(1) : piece;
    switch (this.#kind) {
      case part.data:
        return rest.length === 0 ? undefined : this.#data(rest);
      case part.archive:
        return this.#announce(rest, last);
      case part.manifest:
        this.#into = 'manifest';
        return;
      case part.progress:
        return;
    }
    throw protocolError('an unknown kind of data came within a base backup');
  }

  #data(piece: Buffer): void | Promise<void> {
    if (this.#into === 'archive') return this.#handlers.onData(piece);
    if (this.#into === 'manifest') return this.#handlers.onManifest?.(piece);
    throw protocolError('data came before an archive was announced');
  }

  #announce(piece: Buffer, last: boolean): void | Promise<void> {
    this.#announcedBytes += piece.length;
    if (this.#announcedBytes > longestAnnouncement) throw protocolError('the name of an archive is too long');
    this.#announced.push(Buffer.from(piece));
    if (!last) return;
    const reader = new BodyReader(Buffer.concat(this.#announced));
    this.#announced = [];
    this.#announcedBytes = 0;
    const name = reader.text();
    return this.#beginArchive(name, reader.text() || null);
  }

  #nextCopy(): void | Promise<void> {
    const space = this.#start?.tablespaces[this.#archives];
    if (space !== undefined)
      return this.#beginArchive(space.oid === null ? 'base.tar' : `${space.oid}.tar`, space.location);
    if (!this.#manifest || this.#into === 'manifest')
      throw protocolError('more archives came than were announced');
    this.#into = 'manifest';
  }

  #beginArchive(name: string, location: string | null): void | Promise<void> {
    this.#into = 'archive';
    return this.#handlers.onArchive(this.#archives++, name, location);
  }

  /** Result sets: start position, tablespaces, end position. The command's own completion has no rows. */
  #resultComplete(): void {
    const rows = this.#rows;
    this.#rows = [];
    if (this.#results === 0) this.#begin = readPosition(rows);
    else if (this.#results === 1) this.#started(rows);
    else if (this.#results === 2) {
      const { lsn, timeline } = readPosition(rows);
      this.#result = { stopLsn: lsn, timeline };
      this.#handlers.onStop?.(this.#result);
    }
    this.#results++;
  }

  #started(rows: (string | null)[][]): void {
    if (this.#begin === undefined) throw protocolError('a base backup began without a position');
    const tablespaces = rows.map(([oid = null, location = null, size = null]) => ({
      oid,
      // Up to 17 the data directory is a NULL row; an empty path means the same.
      location: location === '' ? null : location,
      sizeKb: size === null ? null : Number(size),
    }));
    this.#start = { startLsn: this.#begin.lsn, timeline: this.#begin.timeline, tablespaces };
    this.#handlers.onStart(this.#start);
  }
}

function readPosition(rows: (string | null)[][]): { lsn: bigint; timeline: number } {
  const [lsn, timeline] = rows[0] ?? [];
  if (
    !lsn ||
    !/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/.test(lsn) ||
    !timeline ||
    !/^[1-9][0-9]{0,9}$/.test(timeline)
  ) {
    throw protocolError('a base backup has no readable position');
  }
  return { lsn: parseLsn(lsn), timeline: Number(timeline) };
}
