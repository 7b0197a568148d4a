/**
 * The truth: the commit records of a server's own log, in the order of the log, read by PostgreSQL's own
 * programs. Nothing here uses code of Holdfast that reads log.
 */
import { execFile } from 'node:child_process';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { Entry, Kind } from './journal.ts';

/** A commit record. */
export interface CommitRecord {
  /** Where the record starts. */
  readonly lsn: bigint;
  /** Microseconds since 1970. */
  readonly time: bigint;
  readonly xid: number;
}

/** What one server wrote. */
export interface Truth {
  /** In the order of the log. */
  readonly commits: readonly CommitRecord[];
  /** By transaction id: the transactions of the load. */
  readonly entries: ReadonlyMap<number, Entry>;
  /** Where the log ended when it was read. */
  readonly end: bigint;
}

export function parseLsn(text: string): bigint {
  const [high, low] = text.split('/');
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

/** `2026-11-21T13:38:36.123456Z`. */
export function formatTime(micros: bigint): string {
  const seconds = new Date(Number(micros / 1_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(micros % 1_000_000n).padStart(6, '0')}Z`;
}

export function parseTime(text: string): bigint {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?: ?(?:Z|UTC|\+00))$/.exec(text);
  if (match === null) throw new Error(`no time: ${text}`);
  const seconds = BigInt(Date.parse(`${match[1]}T${match[2]}Z`)) * 1000n;
  return seconds + BigInt((match[3] ?? '').padEnd(6, '0'));
}

/**
 * Reads the log of a running server from `from` to where it ends. The server must have kept it
 * (`wal_keep_size`). `pg_waldump` where there is one, else the server's own pg_walinspect.
 */
export async function readTruth(
  server: { readonly url: string; readonly binDir: string; readonly dataDir: string },
  from: string,
): Promise<Truth> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    await client.query(`SET timezone = 'UTC'`);
    const { rows } = await client.query<{ lsn: string; file: string }>(
      'SELECT lsn, pg_walfile_name(lsn) AS file FROM pg_current_wal_flush_lsn() AS lsn',
    );
    const { lsn: end, file } = rows[0]!;
    const timeline = Number.parseInt(file.slice(0, 8), 16);
    const dump = join(server.binDir, 'pg_waldump');
    const commits = (await exists(dump))
      ? await dumped(dump, server.dataDir, { from, end, timeline })
      : await inspected(client, from, end);
    return { commits, entries: await journal(client), end: parseLsn(end) };
  } finally {
    await client.end();
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** `COMMIT_PREPARED` names the transaction at its beginning; the record's own id is another's. */
const prepared = /COMMIT_PREPARED (\d+): /;
const moment = /(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) ?(?:UTC|\+00)/;

async function dumped(
  program: string,
  dataDir: string,
  { from, end, timeline }: { readonly from: string; readonly end: string; readonly timeline: number },
): Promise<CommitRecord[]> {
  const { stdout } = await promisify(execFile)(
    program,
    ['-p', join(dataDir, 'pg_wal'), '-t', String(timeline), '-r', 'Transaction', '-s', from, '-e', end],
    { env: { PATH: process.env.PATH ?? '', TZ: 'UTC', LC_ALL: 'C' }, maxBuffer: 1 << 30 },
  );
  const commits: CommitRecord[] = [];
  for (const line of stdout.split('\n')) {
    const found = /tx: +(\d+), lsn: ([0-9A-F]+\/[0-9A-F]+), .*desc: (COMMIT\S* .*)$/.exec(line);
    if (found === null) continue;
    commits.push(record(found[2]!, found[1]!, found[3]!));
  }
  return commits;
}

async function inspected(client: pg.Client, from: string, end: string): Promise<CommitRecord[]> {
  await client.query('CREATE EXTENSION IF NOT EXISTS pg_walinspect');
  const { rows } = await client.query<{ lsn: string; xid: string; what: string }>(
    `SELECT start_lsn AS lsn, xid::text, record_type || ' ' || description AS what
     FROM pg_get_wal_records_info('${from}', '${end}')
     WHERE resource_manager = 'Transaction' AND record_type LIKE 'COMMIT%' ORDER BY start_lsn`,
  );
  return rows.map(({ lsn, xid, what }) => record(lsn, xid, what));
}

function record(lsn: string, xid: string, what: string): CommitRecord {
  const time = moment.exec(what)?.[1];
  if (time === undefined) throw new Error(`a commit record without a time: ${what}`);
  return {
    lsn: parseLsn(lsn),
    time: parseTime(`${time}Z`),
    xid: Number(prepared.exec(what)?.[1] ?? xid),
  };
}

/** Every row of the journal, by transaction id. */
export async function journal(client: pg.Client): Promise<Map<number, Entry>> {
  const { rows } = await client.query<
    Record<'id' | 'xid' | 'client' | 'a' | 'b' | 'amount' | 'filler', string> & { kind: Kind }
  >('SELECT id, xid, client, kind, a, b, amount, filler FROM journal');
  return new Map(
    rows.map(({ id, xid, client: by, kind, a, b, amount, filler }) => [
      Number(BigInt(xid) & 0xffffffffn),
      {
        id: Number(id),
        client: Number(by),
        kind,
        a: Number(a),
        b: Number(b),
        amount: Number(amount),
        filler,
      },
    ]),
  );
}

/** What a target means for the order of the log: the commits before it. */
export type Stop =
  | { readonly kind: 'time'; readonly time: bigint }
  | { readonly kind: 'lsn'; readonly lsn: bigint }
  | { readonly kind: 'all' };

/** The transactions of the load that must be there, in the order of their commits. */
export function entriesBefore(truth: Truth, stop: Stop): Entry[] {
  const end = truth.commits.findIndex(({ lsn, time }) => {
    if (stop.kind === 'time') return time > stop.time;
    return stop.kind === 'lsn' && lsn >= stop.lsn;
  });
  const kept = end < 0 ? truth.commits : truth.commits.slice(0, end);
  return kept.map(({ xid }) => truth.entries.get(xid)).filter((entry) => entry !== undefined);
}
