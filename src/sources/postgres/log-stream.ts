/**
 * Capture: the server's log from a physical slot into the repository, for as long as it is wanted. Connects
 * again whenever the connection is lost, follows timelines, and says loudly where the log has a gap.
 */
import { type ErrorCode, HoldfastError, isHoldfastError } from '../../core/errors.ts';
import type { CaptureStatus, StreamRequest } from '../source.ts';
import type { ConnectionSettings } from './connection.ts';
import { Heartbeat } from './heartbeat.ts';
import { LogReceiver, type ReceiverEnd } from './log-receiver.ts';
import { planStream, type StreamPlan, warnOfGap } from './log-start.ts';
import { formatLsn, lsnOf } from './position.ts';
import { type PostgresSettings, slotName } from './settings.ts';
import { PostgresConnection } from './wire.ts';

export interface CaptureSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** Never mended by waiting. */
const hopeless: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'postgres.unsupported-version',
  'postgres.pooler',
  'postgres.standby',
  'postgres.other-cluster',
  'postgres.slot-unusable',
  'postgres.wal-invalid',
  'postgres.invalid-address',
  'postgres.protocol',
]);
/** Mistakes when capture is started; while it runs, somebody may be at work on the server and mend them. */
const hopelessAtFirst: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'postgres.authentication-failed',
  'postgres.authentication-unsupported',
  'postgres.cleartext-refused',
  'postgres.not-admitted',
  'postgres.no-replication-right',
  'postgres.no-such-database',
  'postgres.tls-refused',
  'postgres.denied',
  'net.tls',
  'net.authentication',
]);
const firstPauseMs = 250;
const longestPauseMs = 10_000;
const statusEveryMs = 1_000;
/** wal_sender_timeout is 60 s by default. */
const slotBusyMs = 90_000;
/** A trouble that lasts is told again so often. */
const complainEveryMs = 60_000;

/** See `Source.stream`. */
export async function captureLog(source: CaptureSource, request: StreamRequest): Promise<string | null> {
  const capture = new LogCapture(source, request);
  try {
    await capture.run();
  } catch (error) {
    if (!request.signal.aborted) throw error;
  } finally {
    await capture.close();
  }
  return request.writer.head?.to ?? null;
}

class LogCapture {
  readonly #source: CaptureSource;
  readonly #request: StreamRequest;
  readonly #slot: string;
  readonly #heartbeat: Heartbeat | undefined;
  readonly #timer: NodeJS.Timeout;
  #receiver: LogReceiver | undefined;
  #connected = false;
  #gap = false;
  #busySince: number | undefined;
  /** Code of the last failure, until streaming works again. */
  #trouble: string | undefined;
  #complainedAt = Number.NEGATIVE_INFINITY;
  #until: bigint | undefined;
  #totals = { parts: 0, bytes: 0 };
  #written = 0n;
  #state: CaptureStatus['state'] = 'connecting';
  /** The next timeline and where it begins, when one has just ended. */
  #next: { readonly timeline: number; readonly start: bigint } | undefined;

  constructor(source: CaptureSource, request: StreamRequest) {
    this.#source = source;
    this.#request = request;
    this.#slot = slotName(source.name, source.settings);
    const { heartbeat } = source.settings;
    if (heartbeat !== 'off' && request.once !== true) {
      const { clock, log, signal } = request;
      const intervalMs = heartbeat * 1000;
      this.#heartbeat = new Heartbeat({ connection: source.connection, intervalMs, clock, log, signal });
    }
    this.#timer = setInterval(() => this.#tick(), statusEveryMs / 2);
  }

  /** Until aborted, or done with `once`. */
  async run(): Promise<void> {
    const { clock, signal } = this.#request;
    let pause = firstPauseMs;
    for (;;) {
      signal.throwIfAborted();
      this.#setState('connecting');
      const before = this.#totals.parts;
      const error = await this.#session();
      if (error === 'done') return;
      if (error === 'again') continue;
      if (signal.aborted || this.#isHopeless(error) || this.#isBusyTooLong(error)) throw error;
      if (this.#totals.parts > before) pause = firstPauseMs;
      this.#setState('connecting');
      this.#complain(error);
      await clock.sleep(pause * (0.75 + Math.random() / 2), signal);
      pause = Math.min(pause * 2, longestPauseMs);
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#heartbeat?.close();
    this.#setState('stopped');
  }

  /** One connection. Returns how it ended; what storing threw is thrown. */
  async #session(): Promise<unknown> {
    const { signal } = this.#request;
    let replication: PostgresConnection | undefined;
    try {
      replication = await PostgresConnection.connect(this.#source.connection, { replication: true, signal });
      const plan = this.#follow(await this.#plan(replication));
      if (this.#request.once === true) this.#until ??= plan.flushed;
      this.#connected = true;
      const receiver = this.#receive(replication, plan);
      this.#receiver = receiver;
      return this.#after(await receiver.run(), plan, receiver);
    } catch (error) {
      if (isHoldfastError(error, 'postgres.wal-removed') && !this.#gap) {
        warnOfGap(this.#request.log, 'the server no longer has the log that follows what was captured.');
        this.#gap = true;
        return 'again';
      }
      return error ?? new Error('unknown');
    } finally {
      if (this.#receiver !== undefined) {
        this.#totals.parts += this.#receiver.stored.parts;
        this.#totals.bytes += this.#receiver.stored.bytes;
        this.#written = this.#receiver.written;
        this.#receiver = undefined;
      }
      await replication?.close();
    }
  }

  #plan(replication: PostgresConnection): Promise<StreamPlan> {
    const { writer, log, signal } = this.#request;
    const { connection } = this.#source;
    const [head, gap] = [writer.head, this.#gap];
    return planStream({ connection, replication, slot: this.#slot, head, gap, log, signal });
  }

  /** When a timeline has just ended and all of it is stored, the next one begins where it ended. */
  #follow(plan: StreamPlan): StreamPlan {
    const next = this.#next;
    if (next === undefined || this.#gap) return plan;
    return { ...plan, timeline: next.timeline, start: next.start, expected: undefined };
  }

  #receive(connection: PostgresConnection, plan: StreamPlan): LogReceiver {
    const { settings } = this.#source;
    const { writer, clock, log, signal } = this.#request;
    return new LogReceiver({
      plan,
      connection,
      slot: this.#slot,
      writer,
      partIntervalMs: settings.partInterval * 1000,
      partBytes: settings.partSize * 1024 * 1024,
      until: this.#until,
      clock,
      log,
      signal,
      storeSignal: signal,
      onStreaming: () => this.#setState('streaming'),
      onChange: () => this.#changed(),
      onCommits: () => this.#heartbeat?.committed(),
      isServerStopping: () => this.#isServerStopping(),
    });
  }

  /** A part is durable: what was begun for a gap or a new timeline has begun. */
  #changed(): void {
    if (this.#trouble !== undefined) this.#request.log.info('Capture goes on.');
    this.#trouble = undefined;
    this.#gap = false;
    this.#next = undefined;
    this.#tell();
  }

  #after(end: ReceiverEnd, plan: StreamPlan, receiver: LogReceiver): unknown {
    const { log } = this.#request;
    switch (end.why) {
      case 'until':
        return 'done';
      case 'timeline':
        this.#next = { timeline: end.end.nextTimeline, start: end.end.switchLsn };
        log.info(
          `Timeline ${plan.timeline} ended at ${formatLsn(end.end.switchLsn)}; capture goes on with ${end.end.nextTimeline}.`,
        );
        return 'again';
      case 'diverged':
        receiver.warnDiverged();
        this.#gap = true;
        return 'again';
      case 'server-stops':
        log.warn(
          'The server shuts down while the store does not answer: the stream is closed so that it can. Its slot keeps the log.',
        );
        return new HoldfastError('postgres.not-ready', 'The server is shutting down.');
      case 'over':
        return new HoldfastError('net.unreachable', 'The server ended the stream.');
    }
  }

  async #isServerStopping(): Promise<boolean> {
    try {
      const probe = await PostgresConnection.connect(this.#source.connection, {
        signal: this.#request.signal,
      });
      await probe.close();
      return false;
    } catch (error) {
      return isHoldfastError(error) && error.details.sqlState === '57P03';
    }
  }

  /** Once a minute for each kind of trouble: an outage of a night must not fill the log. */
  #complain(error: unknown): void {
    const [code, message] = isHoldfastError(error) ? [error.code, error.message] : ['', String(error)];
    const now = this.#request.clock.monotonic();
    const known = code === this.#trouble && now - this.#complainedAt < complainEveryMs;
    const level = known ? 'debug' : 'warn';
    if (!known) this.#complainedAt = now;
    this.#trouble = code;
    this.#request.log.log(
      level,
      `Capture is interrupted and keeps trying; nothing acknowledged is lost. ${message}`,
      { code },
    );
  }

  /** The server notices only after wal_sender_timeout that our own earlier connection is gone; then it is another's. */
  #isBusyTooLong(error: unknown): boolean {
    if (!isHoldfastError(error, 'postgres.slot-in-use')) {
      this.#busySince = undefined;
      return false;
    }
    const now = this.#request.clock.monotonic();
    this.#busySince ??= now;
    return now - this.#busySince > slotBusyMs;
  }

  #isHopeless(error: unknown): boolean {
    // What the repository or a defect of ours threw is not mended by connecting again.
    if (!isHoldfastError(error)) return true;
    if (hopeless.has(error.code)) return true;
    if (!this.#connected && (hopelessAtFirst.has(error.code) || this.#request.once === true)) return true;
    return !error.code.startsWith('postgres.') && !error.code.startsWith('net.');
  }

  #tick(): void {
    if (this.#state === 'streaming' || this.#state === 'waiting-for-store') {
      this.#heartbeat?.tick();
      this.#state = this.#receiver?.stalled === true ? 'waiting-for-store' : 'streaming';
    }
    this.#tell();
  }

  #setState(state: CaptureStatus['state']): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#tell();
  }

  #tell(): void {
    const { writer, onStatus } = this.#request;
    const receiver = this.#receiver;
    const head = writer.head === undefined ? undefined : lsnOf(writer.head.to);
    const written = receiver?.written ?? this.#written;
    const stored = receiver?.stored ?? { parts: 0, bytes: 0 };
    const lag = receiver === undefined ? null : receiver.lagMs;
    onStatus({
      state: this.#state,
      durable: head === undefined ? null : formatLsn(head),
      written: written === 0n ? null : formatLsn(written),
      backlogBytes: head === undefined || written < head ? 0 : Number(written - head),
      lagMs: lag === null ? null : Math.round(lag),
      parts: this.#totals.parts + stored.parts,
      bytes: this.#totals.bytes + stored.bytes,
    });
  }
}
