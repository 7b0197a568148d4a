/**
 * The object storage below a repository: write-once objects under flat names.
 *
 * Every implementation passes `store.suite.ts`. Names are `/`-separated, of `[A-Za-z0-9._-]` segments, relative,
 * never with `..` and never in the store's own areas (a local store keeps `tmp/` for itself). No name is a folder of
 * another (`a` and `a/b`): a local store cannot hold both.
 */

/** What a store can do, as data: callers ask this, never which kind of store it is. */
export interface StoreCapabilities {
  readonly delete: boolean;
  readonly list: boolean;
  readonly read: boolean;
  /** Keeps hidden older versions of objects. */
  readonly versions: boolean;
  /** Keeps objects from deletion until a date. */
  readonly objectLock: boolean;
}

/** The outcome of a put. Both mean: an object of that name is durable now. */
export type PutOutcome =
  /** This call created it. */
  | 'created'
  /**
   * An object of that name was there before. Success only for names that contain the content's digest or
   * the writer's own random. A store that can read has compared the bytes; it throws
   * `storage.conflict` when they differ.
   */
  | 'exists';

export interface PutResult {
  readonly outcome: PutOutcome;
  /** The store's own time of the object (its clock), milliseconds since 1970. */
  readonly storedAt: number;
  /**
   * Set with 'exists' when an earlier attempt of this same call failed without an answer: then it may well have
   * been this call that created the object. Who concludes from 'exists' that it was there before (probes) must
   * treat that as unknown; for everybody else it is success.
   */
  readonly afterFailure?: true;
}

export interface PutOptions {
  /** SHA-256 of the whole content; the store (or the server behind it) checks it where it can. */
  readonly sha256?: Uint8Array;
  readonly signal?: AbortSignal;
}

export interface ObjectInfo {
  readonly name: string;
  readonly bytes: number;
  /** The store's own time of the object (its clock), milliseconds since 1970. */
  readonly storedAt: number;
}

export interface GetOptions {
  /** First byte; default 0. Negative counts from the end. */
  readonly offset?: number;
  /** How many bytes at most; default: to the end. A shorter object gives fewer, without an error. */
  readonly length?: number;
  readonly signal?: AbortSignal;
}

/** Something about a store that a person should mend although everything works: a finding of `doctor`. */
export interface StoreRisk {
  readonly message: string;
  /** The command that mends it. */
  readonly remedy: string;
}

export interface ObjectStore {
  /** The address as a person would type it, without secrets. */
  readonly address: string;
  readonly capabilities: StoreCapabilities;

  /**
   * Creates the object unless one of that name exists; never overwrites.
   * Durable when it resolves (file and directories fsynced, or the server's success answer).
   * Idempotent for equal bytes; may be repeated after any failure. Never leaves a partial object visible,
   * also not when killed. On abort rejects with the signal's reason; the object may or may not exist then.
   * Several processes may put the same name at once: exactly one `created` at most.
   * Takes the bytes in order as one content; does not keep or change them after it settles.
   */
  put(name: string, content: readonly Uint8Array[], options?: PutOptions): Promise<PutResult>;

  /** The bytes asked for. Rejects with `storage.not-found` where there is no such object. */
  get(name: string, options?: GetOptions): Promise<Uint8Array>;

  /** Size and time, or undefined where there is no such object. */
  head(name: string, options?: { readonly signal?: AbortSignal }): Promise<ObjectInfo | undefined>;

  /**
   * Objects whose name starts with `prefix` (any string, not only whole segments) in ascending byte order of
   * name, after `after` when given. Streams; memory does not grow with the number of objects per page beyond
   * one directory level. An object created or deleted meanwhile may or may not appear; all others do.
   */
  list(
    prefix: string,
    options?: { readonly after?: string; readonly signal?: AbortSignal },
  ): AsyncIterable<ObjectInfo>;

  /** Deletes the object; succeeds when it is gone already. Durable when it resolves. */
  delete(name: string, options?: { readonly signal?: AbortSignal }): Promise<void>;

  /**
   * Finds out whether puts can succeed, without storing an object: rejects as a put would where this user or these
   * credentials may not write, or the store is full or read-only. Resolves with what is risky about who else may
   * read or write there; usually nothing.
   */
  checkWritable(options?: { readonly signal?: AbortSignal }): Promise<readonly StoreRisk[]>;

  /** Ends connections. Idempotent. */
  close(): Promise<void>;
}
