/**
 * Lets an idle server's recovery window move on: writes a small transactional message into the log after some
 * seconds without a commit. It makes a commit record with a time, and needs no table and no extension; each
 * takes a transaction id, and logical decoding sees a message with the prefix `holdfast`.
 */
import type { Clock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { ConnectionSettings } from './connection.ts';
import { PostgresConnection } from './wire.ts';

/**
 * synchronous_commit=off: where we are the synchronous standby and the store is away, waiting for
 * ourselves would hang for ever.
 */
const statement = `
  SET SESSION synchronous_commit = off;
  SET SESSION lock_timeout = '2s';
  SELECT pg_catalog.pg_logical_emit_message(true, 'holdfast', '')`;
const deadlineMs = 5_000;

export interface HeartbeatOptions {
  readonly connection: ConnectionSettings;
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Call `committed` for commits seen in the log and `tick` now and then; `close` at the end. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #sql: PostgresConnection | undefined;
  #last: number;
  #running: Promise<void> | undefined;
  #complained = false;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#last = options.clock.monotonic();
  }

  committed(): void {
    this.#last = this.#options.clock.monotonic();
  }

  /** Beats when it is due. Never throws, never waits. */
  tick(): void {
    const { clock, intervalMs, signal } = this.#options;
    if (this.#running !== undefined || signal.aborted) return;
    if (clock.monotonic() - this.#last < intervalMs) return;
    // Also after a failure the next one comes an interval later.
    this.#last = clock.monotonic();
    this.#running = this.#beat().finally(() => {
      this.#running = undefined;
    });
  }

  async close(): Promise<void> {
    this.#sql?.terminate();
    await this.#running;
    this.#sql?.terminate();
    this.#sql = undefined;
  }

  async #beat(): Promise<void> {
    const { connection, log, signal } = this.#options;
    try {
      if (this.#sql?.isStale === true) {
        this.#sql.terminate();
        this.#sql = undefined;
      }
      this.#sql ??= await PostgresConnection.connect(connection, { signal });
      await this.#sql.query(statement, { signal, timeoutMs: deadlineMs });
      this.#complained = false;
    } catch (error) {
      this.#sql?.terminate();
      this.#sql = undefined;
      if (signal.aborted || this.#complained) return;
      this.#complained = true;
      // Capture itself goes on; only the window of an idle server stands still.
      log.warn(
        'The heartbeat could not be written; while the server is idle, its recovery window does not move on.',
        {
          error,
        },
      );
    }
  }
}
