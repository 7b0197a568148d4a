/** The log beside a base backup: from a temporary slot, as whole segments into the snapshot's own entries. */
import type { Clock } from '../../core/clock.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { Lane } from '../../repository/contract.ts';
import { formatLsn, segmentName, segmentStart } from './position.ts';
import type { PostgresConnection, ReplicationStream } from './wire.ts';

export interface BackupWalOptions {
  readonly connection: PostgresConnection;
  readonly lane: Lane;
  readonly slot: string;
  readonly timeline: number;
  readonly segmentSize: number;
  /** Inside the first segment wanted. */
  readonly from: bigint;
  /** Permission bits of the files. */
  readonly mode: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** The stream broke; not called after `finish`. */
  readonly onFailure: (error: unknown) => void;
}

const statusEveryMs = 5_000;
/** Without one more byte for so long the log is taken as lost. A checkpoint writes at least every few seconds. */
const stallMs = 60_000;

/** Runs from its construction on, until `finish` or the signal. */
export class BackupWal {
  readonly #options: BackupWalOptions;
  readonly #stream: ReplicationStream;
  readonly #status: NodeJS.Timeout;
  #position: bigint;
  #sentAt = 0n;
  /** The write under way: the lane is not free before it settles. */
  #receiving: Promise<void> = Promise.resolve();
  #open = false;
  #stop: bigint | undefined;
  #failed: { readonly error: unknown } | undefined;
  #finished = false;
  #wake: () => void = () => undefined;

  constructor(options: BackupWalOptions) {
    this.#options = options;
    this.#position = segmentStart(options.from, options.segmentSize);
    const { connection, slot, timeline, signal } = options;
    this.#stream = connection.startReplication(
      { slot, timeline, start: this.#position },
      {
        onWal: (_start, _walEnd, sentAt, data) => {
          this.#receiving = this.#receive(sentAt, data);
          return this.#receiving;
        },
        onKeepalive: (_walEnd, sentAt, replyRequested) => {
          this.#sentAt = sentAt;
          if (replyRequested) this.#report();
        },
      },
      signal,
    );
    this.#status = setInterval(() => this.#report(), statusEveryMs);
    this.#stream.ended.then(
      (end) => {
        if (this.#finished) return;
        const why = end === undefined ? 'it ended' : `the server went over to timeline ${end.nextTimeline}`;
        this.#fail(incomplete(`The log beside the base backup broke off: ${why}.`));
      },
      (error) => this.#fail(error),
    );
  }

  /**
   * Waits until everything before `stop` is in the lane and completes the last segment with a hole. Resolves
   * with the server's clock then, milliseconds since 1970. Throws `postgres.backup-incomplete` when nothing
   * more comes.
   */
  async finish(stop: bigint): Promise<number> {
    this.#stop = stop;
    const { clock, signal } = this.#options;
    let seen = this.#position;
    let since = clock.monotonic();
    while (this.#position < stop) {
      if (this.#failed !== undefined) throw this.#failed.error;
      signal.throwIfAborted();
      await Promise.race([
        clock.sleep(1_000, signal),
        new Promise<void>((resolve) => this.#onProgress(resolve)),
      ]);
      if (this.#position > seen) {
        seen = this.#position;
        since = clock.monotonic();
      } else if (clock.monotonic() - since > stallMs) {
        throw incomplete(
          `The log that makes the backup consistent goes up to ${formatLsn(stop)}, but for ${stallMs / 1000} s nothing came after ${formatLsn(this.#position)}.`,
        );
      }
    }
    // The stream may have run ahead of `stop`; nothing more is written from now on but what is under way.
    await this.#receiving;
    if (this.#failed !== undefined) throw this.#failed.error;
    this.#finished = true;
    this.#complete();
    await this.close();
    return Number(this.#sentAt / 1000n);
  }

  /** Ends the stream. Idempotent. */
  async close(): Promise<void> {
    this.#finished = true;
    clearInterval(this.#status);
    await this.#stream.stop();
  }

  async #receive(sentAt: bigint, data: Uint8Array): Promise<void> {
    this.#sentAt = sentAt;
    const { lane, segmentSize } = this.#options;
    let rest = data;
    if (this.#stop !== undefined) {
      const wanted = this.#stop - this.#position;
      rest =
        wanted <= 0n ? rest.subarray(0, 0) : wanted < rest.length ? rest.subarray(0, Number(wanted)) : rest;
    }
    while (rest.length > 0) {
      const offset = Number(this.#position & BigInt(segmentSize - 1));
      if (offset === 0) this.#begin();
      const piece = rest.subarray(0, Math.min(rest.length, segmentSize - offset));
      const wait = lane.write(piece);
      if (wait !== undefined) await wait;
      this.#position += BigInt(piece.length);
      rest = rest.subarray(piece.length);
      if (offset + piece.length === segmentSize) this.#end();
    }
    this.#wake();
  }

  #begin(): void {
    const { lane, timeline, segmentSize, mode, clock } = this.#options;
    const path = `pg_wal/${segmentName(timeline, this.#position, segmentSize)}`;
    lane.begin({ path, type: 'file', mode, mtime: clock.now() });
    this.#open = true;
  }

  #end(): void {
    this.#options.lane.end();
    this.#open = false;
  }

  #complete(): void {
    if (!this.#open) return;
    const { lane, segmentSize } = this.#options;
    lane.hole(segmentSize - Number(this.#position & BigInt(segmentSize - 1)));
    this.#end();
  }

  /**
   * Reports what was received but nothing as durable: the packs are not known to be stored yet, and a server
   * that counts every standby (`synchronous_standby_names = '*'`) must not take this one for one.
   */
  #report(): void {
    this.#stream.status({ write: this.#position, flush: 0n, apply: 0n });
  }

  #onProgress(resolve: () => void): void {
    this.#wake = resolve;
  }

  #fail(error: unknown): void {
    if (this.#failed !== undefined || this.#finished) return;
    this.#failed = { error };
    clearInterval(this.#status);
    this.#wake();
    this.#options.onFailure(error);
  }
}

function incomplete(message: string): HoldfastError {
  return new HoldfastError('postgres.backup-incomplete', message);
}
