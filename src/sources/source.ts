/** The contract of every kind of source. `open.ts` is the only importer of the kinds. */
import type { RunContext } from '../core/context.ts';
import type {
  LogPartHeader,
  LogWriter,
  OpenedSnapshot,
  RepositoryReader,
  SnapshotFacts,
  SnapshotSink,
} from '../repository/contract.ts';

/** One line of `doctor`: a fact about the source, and what a person must change when it is not `ok`. */
export interface Finding {
  /** Stable short name, e.g. `postgres.wal-level`. */
  readonly name: string;
  readonly level: 'ok' | 'note' | 'warning' | 'problem';
  /** What was looked at and what was found. */
  readonly message: string;
  /** The SQL statement, command or configuration line that mends it. */
  readonly remedy?: string;
}

export interface SourceReport {
  readonly reachable: boolean;
  /** E.g. `PostgreSQL 15.18`. Null when unreachable. */
  readonly version: string | null;
  /** What makes it this source and no other (PostgreSQL: the system identifier). */
  readonly identity: string | null;
  readonly findings: readonly Finding[];
}

/** How far capture is; sent with every change, at least once a second while there is something to say. */
export interface CaptureStatus {
  readonly state: 'connecting' | 'streaming' | 'waiting-for-store' | 'stopped';
  /** Durable position, as people write it (PostgreSQL: `0/16B3748`). */
  readonly durable: string | null;
  /** The source's own newest position known to us. */
  readonly written: string | null;
  /** Bytes of log between the two. */
  readonly backlogBytes: number;
  /**
   * Age of the oldest byte that is not durable yet, ms (0 when none). Null where nobody knows: not connected, or
   * catching up, when the source is ahead of what was received.
   */
  readonly lagMs: number | null;
  readonly parts: number;
  readonly bytes: number;
}

export interface SnapshotRequest extends RunContext {
  readonly sink: SnapshotSink;
  /** Store everything, also what is known from the snapshot before. */
  readonly full?: boolean;
}

export interface MarkRequest extends RunContext {
  readonly name: string;
  /** The most to wait for capture, ms. */
  readonly deadlineMs: number;
}

export interface Marked {
  /** Behind the record that holds the name. */
  readonly position: string;
  /** Microseconds since 1970 by the source's clock. */
  readonly time: number;
  /** In the repository. */
  readonly durable: boolean;
  /** A capture runs, so that it will be. */
  readonly capturing: boolean;
}

export interface StreamRequest extends RunContext {
  readonly writer: LogWriter;
  readonly onStatus: (status: CaptureStatus) => void;
  /** Stop by itself once everything up to the source's position at start is durable (`capture --once`). */
  readonly once?: boolean;
}

/** Where a restore shall stop. Positions are the repository's strings. */
export interface StopAt {
  /** Exclusive: nothing at or after this position is replayed. Null: the end of the log given. */
  readonly before: string | null;
  /** The lineage that was live at the target. */
  readonly lineage: string;
  /** Position of the last commit that must be in, and of the first that must not; null where unknown or none. */
  readonly lastCommit: string | null;
  readonly firstExcluded: string | null;
}

export interface RestoreRequest extends RunContext {
  readonly reader: RepositoryReader;
  readonly snapshot: OpenedSnapshot;
  /** In order and without a gap from the snapshot's start to the stop; empty for a bare snapshot. */
  readonly parts: readonly LogPartHeader[];
  readonly stop: StopAt;
  /** Target folder: absolute; empty or not there yet. */
  readonly to: string;
  /** Start the server, replay, promote, compare the reached position with the plan, leave it running. */
  readonly start: boolean;
  /** Folders to look in first for the server's programs, besides the usual places. */
  readonly programs?: readonly string[];
  /**
   * Absolute folders, absent or empty, for parts of the source that lay outside its own folder, by what the source
   * calls them (PostgreSQL: a tablespace by its OID or its folder on the source). Default: beside `to`.
   */
  readonly places?: ReadonlyMap<string, string>;
  /**
   * The source's settings where they are configured here, even with variables that miss: only for what people are
   * told, such as the name of the database to look into.
   */
  readonly settings?: unknown;
}

/** Where a source's own data lies on this host, before it is replaced. Absolute paths. */
export interface OwnPlace {
  readonly directory: string;
  readonly running: boolean;
  /** Commands, as people write them; null: nothing is run. */
  readonly stop: string | null;
  readonly start: string | null;
  /** Folder that what is there now is moved to, by renaming. */
  readonly safety: string;
  /** What was kept by earlier restores in place, newest first. */
  readonly kept: readonly string[];
  readonly warnings: readonly string[];
}

export interface OwnPlaceRequest extends RunContext {
  /** The lineage that the plan stops on: what is replaced must be of the same source. */
  readonly lineage: string;
  /** Replace also what cannot be proven to belong to this source because it is damaged. */
  readonly force: boolean;
  readonly programs?: readonly string[];
}

export interface InPlaceRequest extends Omit<RestoreRequest, 'to' | 'start'> {
  readonly force: boolean;
  /** Start the server afterwards also when it did not run before. */
  readonly start: boolean;
}

export interface Replaced {
  readonly directory: string;
  /** Where what was there before lies now. */
  readonly safety: string;
  /** What the source runs as again; null when it was not started. */
  readonly server: null | {
    readonly connection: string;
    readonly position: string;
    readonly lineage: string;
  };
  readonly next: readonly string[];
  readonly warnings: readonly string[];
}

export interface Restored {
  readonly to: string;
  readonly files: number;
  readonly bytes: number;
  readonly logBytes: number;
  /** With `start`: where it listens and what it reached. */
  readonly server: null | {
    readonly connection: string;
    readonly pid: number;
    readonly reached: string;
    readonly lineage: string;
    /** The command that stops it. */
    readonly stop: string;
  };
  /** What the person does next: commands, in order. */
  readonly next: readonly string[];
  readonly warnings: readonly string[];
}

export interface Source {
  readonly name: string;
  readonly kind: string;
  /** Looks, changes nothing. Never throws for what a person can mend: that is a finding. */
  probe(context: RunContext): Promise<SourceReport>;
  /** A consistent copy into the sink, with the log that makes it consistent. Throws rather than leave anything out silently. */
  snapshot(request: SnapshotRequest): Promise<SnapshotFacts>;
  /**
   * Capture: appends parts until aborted (resolves with the last durable position) or until something that
   * waiting cannot mend (rejects). Reconnects by itself. Acknowledges to the source only what is durable.
   */
  stream(request: StreamRequest): Promise<string | null>;
  /**
   * Names the present place in the source's log. Waits until capture has made it durable, where one runs, up to
   * the deadline. Not idempotent: sources take the same name again, so the caller makes sure that it is new.
   */
  mark(request: MarkRequest): Promise<Marked>;
  /** Finds the source's own data on this host and proves that they are its. Changes nothing. Throws `recovery.place-unusable`. */
  ownPlace(request: OwnPlaceRequest): Promise<OwnPlace>;
  /**
   * Stops the source, restores beside its data, and exchanges the two by renaming; then starts it again. Until the
   * exchange what was there is untouched. What a run that was killed before it had begun to
   * exchange is removed by the next one; an exchange that was interrupted is taken back by `undoInPlace`.
   */
  restoreInPlace(
    request: InPlaceRequest,
  ): Promise<{ readonly restored: Restored; readonly replaced: Replaced }>;
  /** Exchanges the data with what the last restore in place put aside; twice is once forth and back. */
  undoInPlace(context: RunContext & { readonly start: boolean }): Promise<Replaced>;
  close(): Promise<void>;
}

/** Exported per kind, without a connection: planning and configuration need it. */
export interface SourceKind<Settings = unknown> {
  readonly kind: string;
  /** Turns a repository position into what people write, and back (throws `command.usage`). */
  readonly positions: {
    format(position: string): string;
    parse(text: string): string;
    /** The exclusive end that takes in the record at this position. */
    behind(position: string): string;
  };
  /** A transaction's id as commit records hold it. */
  transactionId(written: bigint): bigint;
  readonly settings: { parse(value: unknown): Settings };
  open(name: string, settings: Settings): Source;
  /** What a person should know of this machine before the snapshot is restored on it: sentences. Changes nothing. */
  foresee(
    snapshot: OpenedSnapshot,
    programs: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]>;
  /** Refuses a target that `restore` would refuse: not empty, too small, … Changes nothing. Throws `recovery.target-*`. */
  checkTarget(request: Omit<RestoreRequest, 'stop'>): Promise<void>;
  /** Restoring needs no connection to the source, which may be gone. */
  restore(request: RestoreRequest): Promise<Restored>;
}
