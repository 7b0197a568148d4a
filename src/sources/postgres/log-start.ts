/** Where capture begins: the slot, what the log kept so far says, and whether the server still continues it. */
import { createHash } from 'node:crypto';
import { HoldfastError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import type { LogHead } from '../../repository/contract.ts';
import { type Histories, literal, readHistories } from './cluster.ts';
import type { ConnectionSettings } from './connection.ts';
import { formatLsn, lsnOf, parseHistory, parseLineage, parseLsn, segmentStart } from './position.ts';
import { walPageSize } from './wal-records.ts';
import { PostgresConnection } from './wire.ts';

/** What a resumed stream must bring again: the bytes `[from, to)` with this SHA-256. */
export interface ExpectedPage {
  readonly from: bigint;
  readonly to: bigint;
  readonly sha256: string;
  /** `to` lies inside a record that is longer than a part. */
  readonly inRecord: boolean;
}

/** One stretch of a timeline to be streamed. */
export interface StreamPlan {
  readonly systemId: string;
  readonly timeline: number;
  /** The server's own timeline, which is later when `timeline` has ended. */
  readonly serverTimeline: number;
  readonly segmentSize: number;
  /** First byte of the next part. */
  readonly start: bigint;
  /** Resume the head's stream if this page comes again; undefined for a new stream. */
  readonly expected: ExpectedPage | undefined;
  /**
   * A new stream brings other log at positions that were captured before, up to here. A part must end here: only
   * a part that lies wholly below shows by its times alone, as lists read them, that there are two pasts.
   */
  readonly seam?: bigint | undefined;
  readonly histories: Histories;
  /** The server's flushed position when it was asked. */
  readonly flushed: bigint;
}

interface Slot {
  readonly restart: bigint | undefined;
  readonly lost: boolean;
}

const gapAdvice =
  'The recovery windows before and after stay good; take a new snapshot now, so that the new window can be used: holdfast backup';

export interface PlanOptions {
  readonly connection: ConnectionSettings;
  readonly replication: PostgresConnection;
  readonly slot: string;
  readonly head: LogHead | undefined;
  /** The head's stream cannot be continued: an attempt has shown it. */
  readonly gap: boolean;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Looks at server, slot and head and decides. Creates the slot when it is missing, and replaces a lost one; that
 * is said loudly when something was captured through it before. Throws `postgres.other-cluster`,
 * `postgres.standby`, `postgres.slot-unusable`, `postgres.pooler`.
 */
export async function planStream(options: PlanOptions): Promise<StreamPlan> {
  const { replication, head, signal } = options;
  const identity = await replication.identifySystem({ signal });
  const known = head === undefined ? undefined : parseLineage(head.lineage);
  if (known !== undefined && known.systemId !== identity.systemId) {
    throw new HoldfastError(
      'postgres.other-cluster',
      `The server at ${replication.describe()} has the system identifier ${identity.systemId}; the log captured so far is of ${known.systemId}.`,
    );
  }
  const { segmentSize, slot } = await prepareSlot(options);
  const histories = await readHistories(replication, identity.systemId, identity.timeline);
  const base = {
    systemId: identity.systemId,
    serverTimeline: identity.timeline,
    segmentSize,
    histories,
    flushed: identity.xlogpos,
  };
  if (head !== undefined && known !== undefined && !options.gap) {
    const continued = continueHead(options.log, head, known.timeline, { ...identity, histories });
    if (continued !== undefined) return { ...base, ...continued };
  }
  const restart = slot.restart ?? identity.xlogpos;
  const start = segmentStart(restart, segmentSize);
  const timeline = timelineAt(start, identity.timeline, histories);
  const seam = head !== undefined && known?.timeline === timeline ? lsnOf(head.to) : undefined;
  return { ...base, timeline, start, expected: undefined, seam };
}

/** Tells a gap, and what to do about it. */
export function warnOfGap(log: Logger, why: string): void {
  log.warn(`There is a gap in the log: ${why} ${gapAdvice}`);
}

/** How to go on from the head; undefined, with a warning, when the server has another past than that. */
function continueHead(
  log: Logger,
  head: LogHead,
  timeline: number,
  server: { readonly timeline: number; readonly xlogpos: bigint; readonly histories: Histories },
): Pick<StreamPlan, 'timeline' | 'start' | 'expected'> | undefined {
  const to = lsnOf(head.to);
  const here = `the log was captured up to ${formatLsn(to)} on timeline ${timeline}`;
  const end =
    timeline === server.timeline ? server.xlogpos : endOf(timeline, server.timeline, server.histories);
  if (end === undefined) {
    warnOfGap(log, `${here}, and the server is on timeline ${server.timeline}, which does not come from it.`);
    return undefined;
  }
  if (end < to) {
    const state =
      timeline === server.timeline
        ? `the server is only at ${formatLsn(end)}: it was put back to an older state.`
        : `the server left that timeline already at ${formatLsn(end)}.`;
    warnOfGap(log, `${here}, but ${state}`);
    return undefined;
  }
  const { lastPage, lastPageFrom } = head.meta;
  if (typeof lastPage !== 'string' || typeof lastPageFrom !== 'string') {
    warnOfGap(log, `${here}, and nothing is known of its last page to compare with.`);
    return undefined;
  }
  return {
    timeline,
    start: to,
    expected: { from: lsnOf(lastPageFrom), to, sha256: lastPage, inRecord: head.meta.recordEnd !== head.to },
  };
}

/** Where the server's history left `timeline`; undefined when it never was on it. */
function endOf(timeline: number, serverTimeline: number, histories: Histories): bigint | undefined {
  return historyOf(serverTimeline, histories).find((entry) => entry.timeline === timeline)?.lsn;
}

/** The timeline that the server's history was on at `lsn`. */
function timelineAt(lsn: bigint, serverTimeline: number, histories: Histories): number {
  return historyOf(serverTimeline, histories).find((entry) => lsn < entry.lsn)?.timeline ?? serverTimeline;
}

function historyOf(timeline: number, histories: Histories) {
  const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
  return parseHistory(histories.files[name] ?? '');
}

async function prepareSlot(
  options: PlanOptions,
): Promise<{ readonly slot: Slot; readonly segmentSize: number }> {
  const { connection, replication, head, log, signal } = options;
  const sql = await PostgresConnection.connect(connection, { signal });
  try {
    const address = sql.describe();
    if (await sql.isPooled({ signal })) {
      throw new HoldfastError('postgres.pooler', `${address} is a connection pooler, not PostgreSQL itself.`);
    }
    const [server] = await sql.rows(
      `SELECT pg_catalog.pg_is_in_recovery() AS standby,
              (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') AS size`,
      { signal },
    );
    if (server?.standby === 't') {
      throw new HoldfastError('postgres.standby', `PostgreSQL at ${address} is a standby.`);
    }
    const segmentSize = Number(server?.size);
    const found = await readSlot(sql, options.slot, signal);
    if (found !== undefined && !found.lost) return { slot: found, segmentSize };
    if (found?.lost) {
      log.warn(
        `The replication slot ${options.slot} was invalidated by the server (max_slot_wal_keep_size); it is made again.`,
      );
      await sql.query(`SELECT pg_catalog.pg_drop_replication_slot(${literal(options.slot)})`, { signal });
    } else if (head !== undefined) {
      log.warn(
        `The replication slot ${options.slot} is gone although capture used it before; it is made again.`,
      );
    }
    await replication.createPhysicalSlot(options.slot, { temporary: false, reserveWal: true }, { signal });
    const slot = await readSlot(sql, options.slot, signal);
    log.info(`Created the replication slot ${options.slot}.`);
    return { slot: slot ?? { restart: undefined, lost: false }, segmentSize };
  } finally {
    await sql.close();
  }
}

async function readSlot(
  sql: PostgresConnection,
  name: string,
  signal: AbortSignal,
): Promise<Slot | undefined> {
  const [row] = await sql.rows(
    `SELECT slot_type, temporary, restart_lsn, wal_status FROM pg_catalog.pg_replication_slots
     WHERE slot_name = ${literal(name)}`,
    { signal },
  );
  if (row === undefined) return undefined;
  if (row.slot_type !== 'physical' || row.temporary === 't') {
    const kind = row.temporary === 't' ? 'temporary' : row.slot_type;
    throw new HoldfastError(
      'postgres.slot-unusable',
      `The replication slot ${name} is ${kind}, not a lasting physical one.`,
    );
  }
  const restart = typeof row.restart_lsn === 'string' ? parseLsn(row.restart_lsn) : undefined;
  return { restart, lost: row.wal_status === 'lost' };
}

/** Compares the bytes that a resumed stream brings again with what the head remembers. */
export class PageCheck {
  readonly #expected: ExpectedPage;
  readonly #hash = createHash('sha256');
  #at: bigint;
  /** The bytes from the page's start on, for the parts that follow. */
  readonly #kept: Buffer[] = [];

  constructor(expected: ExpectedPage) {
    this.#expected = expected;
    this.#at = this.streamFrom;
  }

  /** Where the stream must start for it: the page's beginning. */
  get streamFrom(): bigint {
    return this.#expected.from & ~BigInt(walPageSize - 1);
  }

  /** Takes what belongs to it; returns how many bytes that was. */
  take(data: Uint8Array): number {
    const wanted = Number(this.#expected.to - this.#at);
    const piece = data.subarray(0, Math.min(wanted, data.length));
    const skip = Number(this.#expected.from - this.#at);
    const part = skip > 0 ? piece.subarray(Math.min(skip, piece.length)) : piece;
    this.#hash.update(part);
    this.#kept.push(Buffer.from(part));
    this.#at += BigInt(piece.length);
    return piece.length;
  }

  get complete(): boolean {
    return this.#at === this.#expected.to;
  }

  /** Once complete. */
  get equal(): boolean {
    return this.#hash.copy().digest('hex') === this.#expected.sha256;
  }

  /** The bytes `[expected.from, expected.to)`. */
  get bytes(): Buffer {
    return Buffer.concat(this.#kept);
  }
}
