/**
 * What the repository promises to those above it. `repository.ts` is the door; these are its types.
 *
 * Positions are a source's own places in its log, as strings. Within one lineage they compare as strings in
 * the order of the log (PostgreSQL: 16 upper-case hexadecimal digits), so that contiguity and order can
 * be judged without knowing the source. Times of sources are microseconds since 1970 as bigint where a
 * source has them that fine, else milliseconds; the names say which.
 */
import type { RunContext } from '../core/context.ts';

/** Canonical JSON can hold exactly these. Numbers are safe integers. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

/** `lineage` was left at `position` by its successor in the list; oldest first. */
export interface Ancestor {
  readonly lineage: string;
  readonly position: string;
}

// ---------------------------------------------------------------- entries of a snapshot

export type EntryType = 'file' | 'directory' | 'symlink';

/** One thing in a snapshot's listing, without its content. */
export interface EntryMeta {
  /** `/`-separated, relative, no `.` or `..`, unique within the snapshot. Arbitrary UTF-8. */
  readonly path: string;
  readonly type: EntryType;
  /** Permission bits. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Milliseconds since 1970. */
  readonly mtime?: number;
  /** Of a symlink. */
  readonly target?: string;
  /** Source-specific facts, small. */
  readonly extra?: JsonObject;
}

/** `length` bytes at `offset` in the plaintext of frame `frame` of pack `pack` (hex name), or a hole. */
export interface Extent {
  readonly length: number;
  readonly pack: string | null;
  readonly frame: number;
  readonly offset: number;
}

export interface Entry extends EntryMeta {
  readonly size: number;
  /** In order of the file; together `size` bytes. */
  readonly extents: readonly Extent[];
}

// ---------------------------------------------------------------- writing a snapshot

/**
 * One ordered stream of file contents into frames. A run may have several lanes (data, WAL); each is used by
 * one producer at a time.
 */
export interface Lane {
  /** Starts a file; its bytes follow by `write`. Files do not nest. */
  begin(entry: EntryMeta): void;
  /**
   * Appends to the open file. Copies the bytes before it returns. Returns undefined, or, when too much is in
   * flight, a promise that the caller must await before the next write (back pressure; keeps memory bounded).
   * Rejects when a pack could not be stored.
   */
  write(bytes: Uint8Array): Promise<void> | undefined;
  /** Appends `length` zero bytes as a hole (not stored). */
  hole(length: number): void;
  /** Ends the open file. */
  end(): void;
}

/** A file as the snapshot before had it. */
export interface KnownFile {
  readonly size: number;
  /** 8 bytes a block of 8 KiB, as the reader module hashed it. */
  readonly hashes: Uint8Array;
}

/** What a reader found in one stretch of a file. */
export interface BlockPiece {
  /** In the file; a multiple of the block size. */
  readonly offset: number;
  readonly length: number;
  /** 8 bytes a block, the last block perhaps short. */
  readonly hashes: Uint8Array;
  /** Changed blocks in order: [first block in the piece, blocks, pack token, frame, offset in the frame]*. */
  readonly runs: Int32Array;
}

/**
 * Files read block by block in the pipeline's workers, by a reader module of the source (`ReaderModule` of
 * `frame-worker.ts`): only blocks whose hash differs from the one known are stored.
 */
export interface BlockSink {
  /** Digest of the snapshot that unchanged blocks are taken over from; null when everything is stored. */
  readonly previous: string | null;
  /** How many jobs at once keep the workers busy. */
  readonly width: number;
  /** What was known of a file. Ask in ascending byte order of path. */
  known(path: string): Promise<KnownFile | undefined>;
  /** Runs a job of the reader module. The caller bounds how many are under way. */
  read<Answer>(job: { readonly bytes: number }, transfer?: readonly ArrayBuffer[]): Promise<Answer>;
  /**
   * A file from its pieces, which cover `size` bytes in order. In ascending byte order of path; `known` was
   * asked for it before. A block outside the runs must have equalled the known one.
   */
  file(meta: EntryMeta, size: number, pieces: readonly BlockPiece[]): void;
  /** Facts to judge the next run by; kept in the cache. */
  remember(facts: string): void;
}

export interface BlockOptions {
  /** The reader module and what it is made from in each worker. */
  readonly module: URL;
  readonly data: unknown;
  /** Judges by the facts of the snapshot before whether its blocks may be compared with. */
  readonly accept: (facts: string) => boolean;
  /** Store everything, whatever is known. */
  readonly full: boolean;
}

/** The receiving end of `Source.snapshot`. */
export interface SnapshotSink {
  lane(): Lane;
  /** An entry without content (directory, symlink, empty file). */
  entry(entry: EntryMeta): void;
  /** Opens the block-wise side; once, and before the first lane. */
  blocks(options: BlockOptions): Promise<BlockSink>;
}

/** What a source says about the snapshot it just wrote. */
export interface SnapshotFacts {
  readonly lineage: string;
  readonly ancestors: readonly Ancestor[];
  /** Log needed from here … */
  readonly from: string;
  /** … to here, where the copy is consistent; that stretch of log is in the snapshot's own entries. */
  readonly to: string;
  /** Source clock at the start and at the consistent end, milliseconds since 1970. */
  readonly sourceStarted: number;
  readonly sourceFinished: number;
  /** Sealed; what restore needs to know (version, settings, tablespaces, …). At most ~32 KiB of JSON. */
  readonly meta: JsonObject;
  /** For people: what was left out or is risky. Shown by `backup` and `show`. */
  readonly warnings: readonly string[];
}

export interface SnapshotStats {
  readonly files: number;
  /** Sum of the sizes of all files. */
  readonly bytes: number;
  /** What this run added to the store. */
  readonly storedBytes: number;
  readonly packs: number;
  readonly durationMs: number;
}

// ---------------------------------------------------------------- headers (readable without any key)

/** A snapshot as `list` sees it. Signature verified against the roster, unless `trusted` says otherwise. */
export interface SnapshotHeader {
  /** `20261121T101530Z-<8 base32>`. */
  readonly id: string;
  /** SHA-256 of the whole object, hex; part of its name. */
  readonly digest: string;
  readonly name: string;
  readonly source: string;
  readonly kind: string;
  readonly writer: string;
  /** Per writer and source, from 1. */
  readonly sequence: number;
  /** Digest of the same writer's previous manifest of this source, or null. */
  readonly previous: string | null;
  readonly lineage: string;
  readonly ancestors: readonly Ancestor[];
  readonly from: string;
  readonly to: string;
  /** Writer's and source's clocks, milliseconds since 1970. */
  readonly started: number;
  readonly finished: number;
  readonly sourceStarted: number;
  readonly sourceFinished: number;
  readonly bytes: number;
  readonly storedBytes: number;
  readonly files: number;
  /** The store's time of the manifest object. */
  readonly storedAt: number;
}

/** The first and last commit times and their extremes in a part, microseconds since 1970, decimal; null without commits. */
export interface PartTimes {
  readonly first: string;
  readonly last: string;
  readonly min: string;
  readonly max: string;
}

export interface LogPartHeader {
  readonly name: string;
  readonly digest: string;
  readonly source: string;
  readonly kind: string;
  readonly writer: string;
  /** Stream id, `20261121T101530Z-<8 base32>`. */
  readonly stream: string;
  /** From 0 in each stream. A merged part has the sequence of the first that it replaces. */
  readonly sequence: number;
  /** Digest of the part before (of the last replaced part before, when merged); null for the first. */
  readonly previous: string | null;
  /** For a merged part: the last sequence that it replaces and the digest of the last replaced part. */
  readonly replaces: { readonly last: number; readonly digest: string } | null;
  readonly lineage: string;
  readonly ancestors: readonly Ancestor[];
  readonly from: string;
  readonly to: string;
  readonly times: PartTimes | null;
  /** How many named places it holds, so that a name is looked up only where there are any. Absent: none. */
  readonly marks?: number;
  /** Plaintext bytes of log, and bytes of the object. */
  readonly bytes: number;
  readonly storedBytes: number;
  /** Writer's clock when the part was closed, milliseconds. */
  readonly closed: number;
  readonly storedAt: number;
}

// ---------------------------------------------------------------- logs

/** One commit: where its record starts, when it says it was made, and who it was. */
export interface Commit {
  /** Position as a number (PostgreSQL: LSN of the start of the commit record). */
  readonly position: bigint;
  /** Microseconds since 1970 by the source's clock. */
  readonly time: bigint;
  /** PostgreSQL: transaction id. */
  readonly id: bigint;
}

/** A named place in a log (PostgreSQL: a restore point). Names are unique only as far as their makers see to it. */
export interface Mark {
  readonly name: string;
  /** Position of its record; what comes before is the state that the name stands for. */
  readonly position: bigint;
  /** Microseconds since 1970 by the source's clock. */
  readonly time: bigint;
}

/** A stretch of log, as a source hands it over. */
export interface LogStretch {
  readonly lineage: string;
  readonly ancestors: readonly Ancestor[];
  readonly from: string;
  readonly to: string;
  /** The bytes between `from` and `to`. Not kept after the append settles. */
  readonly data: readonly Uint8Array[];
  readonly commits: readonly Commit[];
  /** Named places in it, in order of position; sealed with the part. Default: none. */
  readonly marks?: readonly Mark[];
  /** Sealed with the part, small: source-specific (last record's end, digest of the last page, history files). */
  readonly meta: JsonObject;
}

export interface LogHead {
  readonly stream: string;
  readonly sequence: number;
  readonly digest: string;
  readonly lineage: string;
  readonly to: string;
  /** `meta` of the last part: what resuming compares. */
  readonly meta: JsonObject;
}

/**
 * Appends to the log of one source on behalf of this host. One at a time per source and host (local lock).
 * Opened by `RepositoryWriter.openLog`; parts left in the spool by an earlier run were resent unchanged first.
 */
export interface LogWriter {
  /** The last durable part of this host's newest stream, from local state; undefined when there is none or it was lost. */
  readonly head: LogHead | undefined;
  /** Continues the head's stream. Only right when the source proved that the log goes on from there. */
  resume(): void;
  /** Opens a new stream with the next append (first start, lost state, gap, new lineage). */
  startStream(): void;
  /**
   * Writes one part. Durable in the store when it resolves: spooled and fsynced first, then put, resent
   * unchanged on any retry. Waits (with back-off, reporting through the log) while the store is out of
   * reach, until the signal aborts. Parts are appended in order; one call at a time.
   */
  append(stretch: LogStretch, signal: AbortSignal): Promise<LogHead>;
  /** Merges what is due (small parts into large ones) from the local spool; `force` merges whatever there is. */
  merge(signal: AbortSignal, force?: boolean): Promise<void>;
  close(): Promise<void>;
}

/** A part opened with the decryption identity. */
export interface LogPartContent {
  readonly header: LogPartHeader;
  readonly meta: JsonObject;
  readonly commits: readonly Commit[];
  readonly marks: readonly Mark[];
  /** Authenticated plaintext, in order, in chunks of at most a frame. */
  data(): AsyncIterable<Uint8Array>;
}

/** Everything `RepositoryWriter.beginSnapshot` needs besides the context. */
export interface SnapshotRunOptions {
  readonly source: string;
  readonly kind: string;
  readonly compressionLevel?: number;
}

export interface SnapshotRun extends SnapshotSink {
  /** Stores the listing, the pack list, then the manifest. The snapshot exists when this resolves. */
  publish(facts: SnapshotFacts): Promise<{ readonly header: SnapshotHeader; readonly stats: SnapshotStats }>;
  /** Gives up: ends workers; stored packs stay unreferenced. Idempotent; harmless after `publish`. */
  discard(): Promise<void>;
  /** Bytes stored so far (packs acknowledged). */
  readonly storedBytes: number;
}

/** The side of an opened repository that needs the host's signing key, and no secret that opens backups. */
export interface RepositoryWriter {
  readonly writer: string;
  beginSnapshot(options: SnapshotRunOptions, context: RunContext): Promise<SnapshotRun>;
  openLog(
    options: { readonly source: string; readonly kind: string },
    context: RunContext,
  ): Promise<LogWriter>;
}

/** A snapshot opened with the decryption identity: manifest authenticated, pack list checked. */
export interface OpenedSnapshot {
  readonly header: SnapshotHeader;
  readonly meta: JsonObject;
  readonly warnings: readonly string[];
  readonly stats: SnapshotStats;
  /** Streams the listing in order. */
  entries(signal: AbortSignal): AsyncIterable<Entry>;
}

export interface ExtractOptions {
  /** Absolute path to write an entry to, or null to leave it out. Parents come before children. */
  readonly place: (entry: Entry) => string | null;
  /** Owner of everything written, when running as root. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Content is fsynced, and the directories too, before it resolves. Default true. */
  readonly sync?: boolean;
}

/** The side of an opened repository that needs the decryption identity. */
export interface RepositoryReader {
  openSnapshot(header: SnapshotHeader, signal: AbortSignal): Promise<OpenedSnapshot>;
  /** Writes entries to disk, in parallel, every byte authenticated before it is written. Progress: bytes written. */
  extract(
    snapshot: OpenedSnapshot,
    options: ExtractOptions,
    context: RunContext,
  ): Promise<{ files: number; bytes: number }>;
  /** The content of one (small) entry. */
  readEntry(snapshot: OpenedSnapshot, entry: Entry, signal: AbortSignal): Promise<Uint8Array>;
  openPart(header: LogPartHeader, signal: AbortSignal): Promise<LogPartContent>;
}
