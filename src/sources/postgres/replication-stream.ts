/** START_REPLICATION of a physical stream (PostgreSQL documentation, "Streaming Replication Protocol"). */
import { HoldfastError } from '../../core/errors.ts';
import { copyData, copyDone, protocolError, queryMessage, readRow, serverMessage } from './messages.ts';
import { formatLsn, parseLsn } from './position.ts';
import type { Exchange, Session } from './session.ts';

export interface ReplicationOptions {
  /** Physical slot; without one the server may remove WAL before it was read. */
  readonly slot?: string;
  readonly timeline: number;
  /** First byte wanted. */
  readonly start: bigint;
}

/** Called strictly one after the other; a returned promise stops reading from the server until it resolves. */
export interface ReplicationHandlers {
  /** The server has accepted the stream: the slot is ours. Before anything else. */
  onStart?(): void;
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

/** PostgreSQL counts microseconds from 2000-01-01. */
const epochMicros = 946_684_800_000_000n;
/** After this silence the server is asked for a sign of life, and after the other the stream is given up. */
const askAfterMs = 20_000;
const loseAfterMs = 60_000;
const stopPatienceMs = 10_000;
/** A fiftieth of the second that a part may take; longer saves hardly more. */
const gatherMs = 20;

const kind = { wal: 0x77, keepalive: 0x6b } as const;
const headLength = { [kind.wal]: 25, [kind.keepalive]: 18 } as const;

export class PhysicalStream implements Exchange, ReplicationStream {
  readonly ended: Promise<TimelineEnd | undefined>;

  readonly #session: Session;
  readonly #handlers: ReplicationHandlers;
  readonly #head = Buffer.alloc(25);
  #headFill = 0;
  #headNeeded = 0;
  #position: bigint;
  #walEnd = 0n;
  #sentAt = 0n;
  #copying = false;
  #saidDone = false;
  #over = false;
  #stopping: Promise<void> | undefined;
  #end: TimelineEnd | undefined;
  #last: ReplicationStatus = { write: 0n, flush: 0n, apply: 0n };

  constructor(
    session: Session,
    options: ReplicationOptions,
    handlers: ReplicationHandlers,
    signal: AbortSignal,
  ) {
    this.#session = session;
    this.#handlers = handlers;
    this.#position = options.start;
    const slot = options.slot === undefined ? '' : `SLOT ${slotName(options.slot)} `;
    const command = `START_REPLICATION ${slot}PHYSICAL ${formatLsn(options.start)} TIMELINE ${options.timeline}`;
    this.ended = this.#run(command, signal);
    // Who calls `stop` may never look at `ended`; its rejection must not end the process.
    this.ended.catch(() => undefined);
  }

  status(status: ReplicationStatus): void {
    this.#last = status;
    if (!this.#copying || this.#saidDone) return;
    const body = Buffer.alloc(34);
    body[0] = 0x72;
    body.writeBigUInt64BE(status.write, 1);
    body.writeBigUInt64BE(status.flush, 9);
    body.writeBigUInt64BE(status.apply, 17);
    body.writeBigInt64BE(BigInt(Date.now()) * 1000n - epochMicros, 25);
    body[33] = status.replyNow ? 1 : 0;
    this.#session.send(copyData(body));
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    if (this.#over) return;
    if (this.#copying) this.#sayDone();
    const late = () =>
      new HoldfastError('net.timeout', `The stream of ${this.#session.to.address} did not end in time.`);
    const timer = setTimeout(() => this.#session.fail(late()), stopPatienceMs);
    // Why a stream ended otherwise is told by `ended`; for `stop` it is only important that it did.
    await this.ended.then(
      () => undefined,
      () => undefined,
    );
    clearTimeout(timer);
  }

  async #run(command: string, signal: AbortSignal): Promise<TimelineEnd | undefined> {
    const ask = setInterval(() => {
      if (this.#session.silentMs > askAfterMs) this.status({ ...this.#last, replyNow: true });
    }, askAfterMs / 4);
    try {
      const limits = { signal, cut: true, stallMs: () => loseAfterMs, gatherMs };
      await this.#session.run(queryMessage(command), this, limits);
      return this.#end;
    } finally {
      clearInterval(ask);
      this.#over = true;
      this.#copying = false;
    }
  }

  message(type: number, body: Buffer): void {
    switch (type) {
      case serverMessage.copyBoth:
        this.#copying = true;
        this.#handlers.onStart?.();
        if (this.#stopping !== undefined) this.#sayDone();
        return;
      case serverMessage.copyDone:
        if (this.#headFill > 0) throw protocolError('the stream ends within a message');
        this.#sayDone();
        return;
      case serverMessage.dataRow: {
        const [timeline, lsn] = readRow(body).map((value) => value?.toString('latin1') ?? '');
        if (!/^[1-9][0-9]{0,9}$/.test(timeline ?? '') || !/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/.test(lsn ?? '')) {
          throw protocolError('the end of a timeline is not readable');
        }
        this.#end = { nextTimeline: Number(timeline), switchLsn: parseLsn(lsn!) };
        return;
      }
      case serverMessage.rowDescription:
      case serverMessage.commandComplete:
      case serverMessage.readyForQuery:
        return;
    }
    throw protocolError('an unknown message came within a replication stream');
  }

  copy(piece: Buffer, first: boolean, last: boolean): void | Promise<void> {
    if (!this.#copying) throw protocolError('data came before the stream began');
    if (first) this.#begin(piece);
    let rest = piece;
    if (this.#headFill < this.#headNeeded) {
      const taken = piece.copy(this.#head, this.#headFill, 0, this.#headNeeded - this.#headFill);
      this.#headFill += taken;
      rest = piece.subarray(taken);
      if (this.#headFill < this.#headNeeded) {
        if (last) throw protocolError('a message of the stream is too short');
        return;
      }
      this.#readHead();
    }
    if (last) this.#headFill = 0;
    // What comes after CopyDone was said is nobody's any more.
    if (rest.length === 0 || this.#saidDone) return;
    if (this.#head[0] !== kind.wal) throw protocolError('a keepalive is too long');
    const start = this.#position;
    this.#position = start + BigInt(rest.length);
    return this.#handlers.onWal(start, this.#walEnd, this.#sentAt, rest);
  }

  #begin(piece: Buffer): void {
    const type = piece[0];
    if (type !== kind.wal && type !== kind.keepalive)
      throw protocolError('an unknown kind of data came within a stream');
    this.#headFill = 0;
    this.#headNeeded = headLength[type];
  }

  #readHead(): void {
    const head = this.#head;
    if (head[0] === kind.keepalive) {
      if (this.#saidDone) return;
      const sentAt = head.readBigInt64BE(9) + epochMicros;
      this.#handlers.onKeepalive(head.readBigUInt64BE(1), sentAt, head[17] === 1);
      return;
    }
    const start = head.readBigUInt64BE(1);
    if (start !== this.#position && !this.#saidDone) {
      throw protocolError(`WAL of ${formatLsn(start)} came where ${formatLsn(this.#position)} was next`);
    }
    this.#walEnd = head.readBigUInt64BE(9);
    this.#sentAt = head.readBigInt64BE(17) + epochMicros;
  }

  #sayDone(): void {
    if (this.#saidDone) return;
    this.#saidDone = true;
    this.#session.send(copyDone());
  }
}

/** Quoted; slots have names of lower-case letters, digits and underscores. Throws `command.usage` for others. */
export function slotName(name: string): string {
  if (/^[a-z0-9_]{1,63}$/.test(name)) return `"${name}"`;
  throw new HoldfastError('command.usage', `"${name}" cannot be the name of a replication slot.`, {
    next: 'Use lower-case letters, digits and underscores, at most 63.',
  });
}
