/**
 * One connection's stretch of a capture: receives log, closes parts, has them stored, and acknowledges to the
 * server exactly what is durable.
 *
 * Receiving goes on while a part is being stored, up to a limit of memory; beyond it the socket is left unread.
 * One put is in flight at a time, so that under load parts grow and not their number.
 */
import type { Clock } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { LogWriter } from '../../repository/contract.ts';
import { PageCheck, type StreamPlan, warnOfGap } from './log-start.ts';
import { formatLsn, lineageOf, positionOf } from './position.ts';
import { type WalPart, WalParts } from './wal-part.ts';
import { WalScanner, walPageSize } from './wal-records.ts';
import type { PostgresConnection, ReplicationStream, TimelineEnd } from './wire.ts';

/** The server forgets who stays silent for wal_sender_timeout (60 s by default). */
const reportEveryMs = 10_000;
/** Keepalives that ask for an answer which would say nothing new are answered at most so often. */
const answerEveryMs = 500;
/** A server that stops waits for our acknowledgement: after so long without progress see whether it does. */
const stalledMs = 2_000;
/** Of one message of the server (MAX_SEND_SIZE of its walsender.c): so much ahead is only on its way. */
const messageBytes = 128n * 1024n;
/** Beside one part being stored and one being filled: what a carried-over record takes. */
const spareBytes = 4 * 1024 * 1024;

export interface ReceiverOptions {
  readonly plan: StreamPlan;
  readonly connection: PostgresConnection;
  readonly slot: string;
  readonly writer: LogWriter;
  readonly partIntervalMs: number;
  readonly partBytes: number;
  /** End by itself once everything before this position is durable. */
  readonly until: bigint | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Ends the receiving; a put that is under way goes on. */
  readonly signal: AbortSignal;
  /** Ends puts too. */
  readonly storeSignal: AbortSignal;
  /** The server has accepted the stream. */
  readonly onStreaming: () => void;
  readonly onChange: () => void;
  readonly onCommits: () => void;
  /** True when the server is shutting down. */
  readonly isServerStopping: () => Promise<boolean>;
}

export type ReceiverEnd =
  | { readonly why: 'timeline'; readonly end: TimelineEnd }
  | { readonly why: 'until' | 'diverged' | 'server-stops' | 'over' };

export class LogReceiver {
  readonly #options: ReceiverOptions;
  readonly #check: PageCheck | undefined;
  #parts: WalParts | undefined;
  #stream!: ReplicationStream;
  #durable: bigint;
  #written: bigint;
  /** Closed parts that wait for their turn, and the one that is being stored. */
  readonly #queue: WalPart[] = [];
  #storing: WalPart | undefined;
  #storeLoop: Promise<void> | undefined;
  #first = true;
  #failure: { readonly error: unknown } | undefined;
  #due = false;
  #asked = false;
  #answeredAt = Number.NEGATIVE_INFINITY;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #progressAt: number;
  #held = false;
  #checkingServer = false;
  #over = false;
  readonly #ending = Promise.withResolvers<ReceiverEnd>();
  stored = { parts: 0, bytes: 0 };

  constructor(options: ReceiverOptions) {
    this.#options = options;
    const { plan, clock } = options;
    this.#check = plan.expected === undefined ? undefined : new PageCheck(plan.expected);
    this.#durable = plan.expected === undefined ? 0n : plan.start;
    this.#written = plan.flushed;
    this.#progressAt = clock.monotonic();
  }

  /** Durable position; 0 when this stream has none yet. */
  get durable(): bigint {
    return this.#durable;
  }

  /** The server's newest position known. */
  get written(): bigint {
    return this.#written;
  }

  /** Age of the oldest byte that is not durable, ms; null while the server is ahead of what was received. */
  get lagMs(): number | null {
    const received = this.#parts?.position ?? this.#options.plan.start;
    if (this.#written - received > messageBytes) return null;
    const oldest = this.#storing?.receivedAt ?? this.#queue[0]?.receivedAt ?? this.#parts?.receivedAt;
    return oldest === undefined ? 0 : Math.max(0, this.#options.clock.monotonic() - oldest);
  }

  /** True while a put takes longer than usual. */
  get stalled(): boolean {
    return this.#storing !== undefined && this.#options.clock.monotonic() - this.#progressAt > stalledMs;
  }

  /**
   * Runs until the timeline ends, `until` is reached, the server diverged or stops; rejects when the connection
   * is lost, the log is invalid or storing failed. The put under way has settled when it settles.
   */
  async run(): Promise<ReceiverEnd> {
    const { connection, plan, slot, signal } = this.#options;
    this.#stream = connection.startReplication(
      { slot, timeline: plan.timeline, start: this.#check?.streamFrom ?? plan.start },
      {
        onStart: () => this.#options.onStreaming(),
        onWal: (_start, walEnd, _sentAt, data) => this.#receive(walEnd, data),
        onKeepalive: (walEnd, _sentAt, replyRequested) => this.#keepalive(walEnd, replyRequested),
      },
      signal,
    );
    const timer = setInterval(
      () => this.#tick(),
      Math.min(50, Math.max(10, this.#options.partIntervalMs / 4)),
    );
    this.#report();
    try {
      const ended = this.#stream.ended.then(
        (end): ReceiverEnd => (end === undefined ? { why: 'over' } : { why: 'timeline', end }),
      );
      const result = await Promise.race([ended, this.#ending.promise]);
      if (result.why === 'timeline') await this.#drain();
      return result;
    } finally {
      this.#over = true;
      clearInterval(timer);
      connection.terminate();
      await this.#settle();
    }
  }

  /** The bytes before `plan.start` are known and right, or there are none: what comes now is stored. */
  #begin(before: Uint8Array): WalParts {
    const { plan, clock, writer, partBytes } = this.#options;
    const memoryLimit = 2 * partBytes + spareBytes;
    const { expected, start, segmentSize } = plan;
    // A page may begin inside a record or the filler after a switch; where a record ended, the scan can begin.
    const from = expected?.inRecord === true ? start & ~BigInt(walPageSize - 1) : start;
    const scanner = new WalScanner(from, { segmentSize, systemId: BigInt(plan.systemId) });
    if (from < start) scanner.push(before.subarray(before.length - Number(start - from)));
    if (expected === undefined) writer.startStream();
    else {
      writer.resume();
      this.#first = false;
    }
    return new WalParts({ start, before, scanner, memoryLimit, now: () => clock.monotonic() });
  }

  #receive(walEnd: bigint, data: Uint8Array): void | Promise<void> {
    if (walEnd > this.#written) this.#written = walEnd;
    let rest = data;
    if (this.#check !== undefined && this.#parts === undefined) {
      rest = data.subarray(this.#check.take(data));
      if (!this.#check.complete) return;
      if (!this.#check.equal) {
        this.#ending.resolve({ why: 'diverged' });
        this.#over = true;
        return;
      }
      this.#parts = this.#begin(this.#check.bytes);
    }
    // Not before something came: until then nothing says that the server lets us have it.
    this.#parts ??= this.#begin(new Uint8Array(0));
    if (rest.length > 0) return this.#take(this.#parts, rest);
  }

  #take(parts: WalParts, data: Uint8Array): void | Promise<void> {
    const { seam } = this.#options.plan;
    const below = seam === undefined ? 0 : Number(seam - parts.position);
    if (below <= 0 || below > data.length) return this.#takeAll(parts, data);
    const goOn = () => {
      this.#close(parts);
      return this.#takeAll(parts, data.subarray(below));
    };
    const held = this.#takeAll(parts, data.subarray(0, below));
    return held === undefined ? goOn() : held.then(goOn);
  }

  #takeAll(parts: WalParts, data: Uint8Array): void | Promise<void> {
    if (this.#over) return;
    const commits = parts.commits;
    const used = parts.take(data);
    if (parts.commits > commits) this.#options.onCommits();
    const { partBytes, until } = this.#options;
    if (parts.size >= partBytes) this.#close(parts);
    else if (until !== undefined && parts.position >= until) this.#closeSoon();
    if (used === data.length) return;
    // Full of one record that does not end: nothing would ever make room.
    if (this.#queue.length === 0 && this.#storing === undefined) this.#close(parts, true);
    this.#held = true;
    return parts.room().then(() => {
      this.#held = false;
      return this.#takeAll(parts, data.subarray(used));
    });
  }

  #keepalive(walEnd: bigint, replyRequested: boolean): void {
    if (walEnd > this.#written) this.#written = walEnd;
    if (!replyRequested) return;
    this.#asked = true;
    this.#closeSoon();
    if (this.#outstanding === 0) this.#report();
  }

  /** Received complete records that are not durable. */
  get #outstanding(): number {
    if (this.#parts === undefined) return 0;
    return (
      this.#queue.length +
      (this.#storing === undefined ? 0 : 1) +
      (this.#parts.complete > this.#parts.from ? 1 : 0)
    );
  }

  /** Puts the open part at once, or as soon as the put under way is done. */
  #closeSoon(): void {
    this.#due = true;
    this.#pump();
  }

  #close(parts: WalParts, full = false): void {
    // A record larger than a part has no end to wait for.
    const oversized = full || parts.size >= this.#options.partBytes;
    const part = parts.close() ?? (oversized ? parts.close(true) : undefined);
    if (part === undefined) return;
    this.#due = false;
    this.#queue.push(part);
    this.#pump();
  }

  #pump(): void {
    if (this.#storeLoop !== undefined || this.#failure !== undefined || this.#over) return;
    if (this.#queue.length === 0 && this.#due && this.#parts !== undefined) {
      this.#due = false;
      const part = this.#parts.close();
      if (part !== undefined) this.#queue.push(part);
    }
    const next = this.#queue.shift();
    if (next === undefined) {
      this.#checkUntil();
      return;
    }
    this.#storing = next;
    this.#storeLoop = this.#store(next).finally(() => {
      this.#storing = undefined;
      this.#storeLoop = undefined;
      this.#pump();
    });
  }

  async #store(part: WalPart): Promise<void> {
    const { plan, writer, clock, storeSignal } = this.#options;
    this.#progressAt = clock.monotonic();
    try {
      await writer.append(
        {
          lineage: lineageOf(plan.systemId, plan.timeline),
          ancestors: plan.histories.ancestors.slice(0, this.#ancestorsBefore()),
          from: positionOf(part.from),
          to: positionOf(part.to),
          data: part.data,
          commits: part.commits,
          marks: part.marks,
          meta: {
            recordEnd: positionOf(part.recordEnd),
            lastPage: part.lastPage,
            lastPageFrom: positionOf(part.lastPageFrom),
            ...(this.#first ? { histories: plan.histories.files } : {}),
          },
        },
        storeSignal,
      );
    } catch (error) {
      this.#failure = { error };
      this.#ending.reject(error);
      return;
    } finally {
      part.release();
    }
    this.#first = false;
    this.#durable = part.to;
    this.#progressAt = clock.monotonic();
    this.stored.parts += 1;
    this.stored.bytes += Number(part.to - part.from);
    this.#report();
    this.#options.onChange();
  }

  /** Of a timeline that has ended, the server's history names also what came after it. */
  #ancestorsBefore(): number {
    const { plan } = this.#options;
    const own = lineageOf(plan.systemId, plan.timeline);
    const index = plan.histories.ancestors.findIndex(({ lineage }) => lineage === own);
    return index < 0 ? plan.histories.ancestors.length : index;
  }

  /** Durable is written, flushed and applied: apply = 0 would hang `synchronous_commit = remote_apply`. */
  #report(): void {
    if (this.#stream === undefined) return;
    const now = this.#options.clock.monotonic();
    this.#reportedAt = now;
    this.#answeredAt = now;
    this.#asked = false;
    this.#stream.status({ write: this.#durable, flush: this.#durable, apply: this.#durable });
  }

  #tick(): void {
    const { clock, partIntervalMs } = this.#options;
    const now = clock.monotonic();
    const parts = this.#parts;
    if (parts?.receivedAt !== undefined && now - parts.receivedAt >= partIntervalMs) this.#closeSoon();
    const answerDue = this.#asked && now - this.#answeredAt >= answerEveryMs;
    if (answerDue || now - this.#reportedAt >= reportEveryMs) {
      if (this.#asked || this.#held) this.#lookWhetherServerStops();
      this.#report();
    }
    if (this.#held && now - this.#answeredAt >= answerEveryMs * 4) this.#lookWhetherServerStops();
    this.#checkUntil();
  }

  #checkUntil(): void {
    const { until } = this.#options;
    const { plan } = this.#options;
    if (until === undefined || (this.#check !== undefined && this.#parts === undefined)) return;
    const position = this.#parts?.position ?? plan.start;
    if (position >= until && this.#outstanding === 0) this.#ending.resolve({ why: 'until' });
  }

  /**
   * A server that shuts down waits for us to confirm its last byte. When the store does not take it, that would
   * hold the server up for ever; its slot keeps the log for later.
   */
  #lookWhetherServerStops(): void {
    const { clock, isServerStopping, log } = this.#options;
    if (this.#checkingServer || clock.monotonic() - this.#progressAt < stalledMs) return;
    if (this.#storing === undefined) return;
    this.#checkingServer = true;
    isServerStopping()
      .then(
        (stopping) => {
          if (stopping) this.#ending.resolve({ why: 'server-stops' });
        },
        (error) => log.debug('The server could not be asked whether it stops.', { error }),
      )
      .finally(() => {
        this.#checkingServer = false;
      });
  }

  /** The timeline is over: everything received is stored, its end included. */
  async #drain(): Promise<void> {
    const rest = this.#parts?.close(true);
    if (rest !== undefined) this.#queue.push(rest);
    this.#pump();
    while (this.#storeLoop !== undefined) await this.#storeLoop;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Waits for the put under way and lets the rest go: the server has it still. */
  async #settle(): Promise<void> {
    for (const part of this.#queue.splice(0)) part.release();
    await this.#storeLoop;
  }

  /** For the warning when the page differs. */
  warnDiverged(): void {
    const { plan, log } = this.#options;
    warnOfGap(
      log,
      `the server's log before ${formatLsn(plan.start)} is not the one captured: it was put back to an older state and went on from there.`,
    );
  }
}
