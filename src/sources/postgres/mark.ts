/** Names the present place in the log with a restore point, and waits until that is durable in the repository. */
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import type { Marked, MarkRequest } from '../source.ts';
import { identifier, literal } from './cluster.ts';
import type { ConnectionSettings } from './connection.ts';
import { parseLsn, positionOf } from './position.ts';
import { type PostgresSettings, slotName } from './settings.ts';
import { PostgresConnection } from './wire.ts';

export interface MarkSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** MAXFNAMELEN, with its final zero byte. */
const longestName = 63;
const pollMs = 100;
const answerMs = 10_000;

/** See `Source.mark`. */
export async function markServer(source: MarkSource, request: MarkRequest): Promise<Marked> {
  const { name, signal } = request;
  if (Buffer.byteLength(name) > longestName) {
    throw new HoldfastError(
      'command.usage',
      `PostgreSQL takes names of at most ${longestName} bytes; "${name}" is longer.`,
      {
        next: 'Choose a shorter name.',
      },
    );
  }
  const sql = await PostgresConnection.connect(source.connection, { signal });
  try {
    if (await sql.isPooled({ signal })) {
      throw new HoldfastError(
        'postgres.pooler',
        `${sql.describe()} is a connection pooler, not PostgreSQL itself.`,
      );
    }
    const { end, time } = await createPoint(sql, name, signal);
    const durable = await untilDurable(sql, slotName(source.name, source.settings), end, request);
    return { position: positionOf(end), time, ...durable };
  } finally {
    await sql.close();
  }
}

async function createPoint(
  sql: PostgresConnection,
  name: string,
  signal: AbortSignal,
): Promise<{ readonly end: bigint; readonly time: number }> {
  const options = { signal, timeoutMs: answerMs };
  const [self] = await sql.rows(
    `SELECT pg_catalog.pg_is_in_recovery() AS standby, current_user AS role`,
    options,
  );
  if (self?.standby === 't') {
    throw new HoldfastError(
      'postgres.standby',
      `${sql.describe()} is a standby: it writes no log of its own.`,
      {
        next: 'Set the mark on the primary; a capture from the standby receives it from there.',
      },
    );
  }
  try {
    const [row] = await sql.rows(
      `SELECT pg_catalog.pg_create_restore_point(${literal(name)}) AS lsn,
              (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint AS time`,
      options,
    );
    // A restore point is not flushed by itself: a commit behind it is, and takes it along. Asynchronous
    // replicas must not hold it up.
    await sql.query('SET SESSION synchronous_commit = local', options);
    await sql.query(
      `SELECT pg_catalog.pg_logical_emit_message(true, 'holdfast', ${literal(`mark ${name}`)})`,
      options,
    );
    return { end: parseLsn(row?.lsn ?? ''), time: Number(row?.time) };
  } catch (error) {
    if (!isHoldfastError(error, 'postgres.denied')) throw error;
    throw new HoldfastError('postgres.denied', `The role ${self?.role} may not name places in the log.`, {
      cause: error,
      next: `As a superuser, in the database ${sql.parameters.get('database') ?? 'that the source names'}: GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO ${identifier(self?.role ?? '')};`,
    });
  }
}

/** What capture acknowledged is durable: its slot says how far that is. */
async function untilDurable(
  sql: PostgresConnection,
  slot: string,
  end: bigint,
  { clock, signal, deadlineMs }: MarkRequest,
): Promise<Pick<Marked, 'durable' | 'capturing'>> {
  const until = clock.monotonic() + deadlineMs;
  let capturing = false;
  for (;;) {
    const [row] = await sql.rows(
      `SELECT active, restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = ${literal(slot)}`,
      { signal, timeoutMs: answerMs },
    );
    capturing = row?.active === 't';
    if (typeof row?.restart_lsn === 'string' && parseLsn(row.restart_lsn) >= end)
      return { durable: true, capturing };
    if (!capturing || clock.monotonic() >= until) return { durable: false, capturing };
    await clock.sleep(pollMs, signal);
  }
}
