/** START_REPLICATION of a physical stream: options, handlers and the running stream. */

export interface ReplicationOptions {
  /** Physical slot; without one the server may remove WAL before it was read. */
  readonly slot?: string;
  readonly timeline: number;
  /** First byte wanted. */
  readonly start: bigint;
}

/** Called strictly one after the other; a returned promise stops reading from the server until it resolves. */
export interface ReplicationHandlers {
  /**
   * WAL bytes from position `start`, contiguous with the call before. `data` is valid only until the call
   * returns or its promise resolves. One message of the server may come in several calls.
   * `walEnd`: the server's newest position; `sentAtMicros`: its clock, µs since 1970 UTC.
   */
  onWal(start: bigint, walEnd: bigint, sentAtMicros: bigint, data: Uint8Array): void | Promise<void>;
  /** A sign of life. With `replyRequested` the server drops the connection unless `status` is called soon. */
  onKeepalive(walEnd: bigint, sentAtMicros: bigint, replyRequested: boolean): void;
}

export interface ReplicationStatus {
  readonly write: bigint;
  /** Durable: the server may forget everything before it. */
  readonly flush: bigint;
  readonly apply: bigint;
  /** Ask the server for a keepalive at once. */
  readonly replyNow?: boolean;
}

/** The server ended the stream because the timeline ended there. */
export interface TimelineEnd {
  readonly nextTimeline: number;
  readonly switchLsn: bigint;
}

export interface ReplicationStream {
  /** Reports positions. Never waits; silently nothing once the stream is over. */
  status(status: ReplicationStatus): void;
  /** Ends the stream in good order (CopyDone both ways); the connection can be used again. Idempotent. */
  stop(): Promise<void>;
  /**
   * Settles when the stream is over: with the next timeline when this one ended, undefined after `stop`.
   * Rejects when it could not start, the connection was lost, a handler failed or the signal aborted.
   */
  readonly ended: Promise<TimelineEnd | undefined>;
}
