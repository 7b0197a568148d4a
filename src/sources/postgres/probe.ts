/** What `doctor` says about a PostgreSQL server: facts, and for each risk the statement or line that mends it. */
import type { RunContext } from '../../core/context.ts';
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import type { Finding, SourceReport } from '../source.ts';
import { identifier } from './cluster.ts';
import { type ConnectionSettings, describeConnection } from './connection.ts';
import { type PostgresSettings, slotName } from './settings.ts';
import { PostgresConnection } from './wire.ts';

export interface ProbeSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** What the questions below answer, by name; null where the role may not see it. */
type Answers = Readonly<Record<string, string | null>>;

/** Looks, changes nothing. What a person can mend is a finding, not an error; an abort is thrown. */
export async function probeServer(source: ProbeSource, context: RunContext): Promise<SourceReport> {
  const { signal } = context;
  let sql: PostgresConnection;
  try {
    sql = await PostgresConnection.connect(source.connection, { signal });
  } catch (error) {
    signal.throwIfAborted();
    return {
      reachable: false,
      version: null,
      identity: null,
      findings: [failure('postgres.connection', error)],
    };
  }
  try {
    const findings: Finding[] = [];
    const add = (finding: Finding | undefined) => finding !== undefined && findings.push(finding);
    add({
      name: 'postgres.connection',
      level: 'ok',
      message: `Connected to ${describeConnection(source.connection)}${sql.secure ? ', encrypted' : ''}.`,
    });
    add(await pooler(sql, signal));
    const before = context.clock.now();
    const answers = await ask(sql, slotName(source.name, source.settings), signal);
    add(clock(answers, before, context.clock.now()));
    const identity = await replication(source, findings, signal);
    for (const look of looks) add(look(answers, source));
    return {
      reachable: true,
      version: `PostgreSQL ${sql.parameters.get('server_version')}`,
      identity,
      findings,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (!isHoldfastError(error)) throw error;
    const findings = [failure('postgres.connection', error)];
    return {
      reachable: true,
      version: sql.parameters.get('server_version') ?? null,
      identity: null,
      findings,
    };
  } finally {
    await sql.close();
  }
}

function failure(name: string, error: unknown): Finding {
  if (error instanceof HoldfastError) {
    return { name, level: 'problem', message: error.message, remedy: error.next };
  }
  return { name, level: 'problem', message: String(error) };
}

async function pooler(sql: PostgresConnection, signal: AbortSignal): Promise<Finding> {
  const name = 'postgres.pooler';
  if (!(await sql.isPooled({ signal })))
    return { name, level: 'ok', message: 'The address is that of the server itself.' };
  return {
    name,
    level: 'problem',
    message: 'The address is that of a connection pooler; replication does not pass through it.',
    remedy: 'Give the direct address of the PostgreSQL server (its own host and port, usually 5432).',
  };
}

/** The replication connection is what backup and capture live on; returns the system identifier. */
async function replication(
  source: ProbeSource,
  findings: Finding[],
  signal: AbortSignal,
): Promise<string | null> {
  const name = 'postgres.replication';
  try {
    const connection = await PostgresConnection.connect(source.connection, { replication: true, signal });
    try {
      const { systemId } = await connection.identifySystem({ signal });
      findings.push({ name, level: 'ok', message: `The role "${source.connection.user}" may replicate.` });
      return systemId;
    } finally {
      await connection.close();
    }
  } catch (error) {
    signal.throwIfAborted();
    findings.push(failure(name, error));
    return null;
  }
}

const settingNames = [
  ...[
    'wal_level',
    'max_wal_senders',
    'max_replication_slots',
    'max_slot_wal_keep_size',
    'wal_sender_timeout',
  ],
  ...['full_page_writes', 'fsync', 'data_checksums', 'archive_mode', 'synchronous_standby_names'],
  ...['synchronous_commit', 'wal_keep_size', 'idle_replication_slot_timeout'],
];

async function ask(sql: PostgresConnection, slot: string, signal: AbortSignal): Promise<Answers> {
  const settings = await sql.rows(
    `SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN (${settingNames.map((name) => `'${name}'`).join(', ')})`,
    { signal },
  );
  const [self] = await sql.rows(
    `SELECT pg_catalog.pg_is_in_recovery() AS standby, current_user AS role,
       pg_catalog.pg_has_role('pg_read_all_settings', 'MEMBER') AS all_settings,
       (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint AS clock,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots`,
    { signal },
  );
  const [found] = await sql.rows(
    `SELECT slot_type, active AS slot_active, wal_status, restart_lsn,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn) END AS backlog
     FROM pg_catalog.pg_replication_slots WHERE slot_name = '${slot}'`,
    { signal },
  );
  return {
    ...Object.fromEntries(settings.map(({ name, setting }) => [name!, setting ?? null])),
    ...self,
    ...found,
    slot,
  };
}

function clock(answers: Answers, before: number, after: number): Finding {
  const name = 'postgres.clock';
  // The server's answer lies between our two readings; beyond them the clocks differ for sure.
  const server = Number(answers.clock);
  const offset = server < before ? server - before : server > after ? server - after : 0;
  if (Math.abs(offset) < 1000) {
    return {
      name,
      level: 'ok',
      message: `The clocks of the server and of this host agree (within ${Math.max(1, after - before)} ms).`,
    };
  }
  return {
    name,
    level: 'warning',
    message: `The clock of the server is ${Math.abs(offset)} ms ${offset > 0 ? 'ahead of' : 'behind'} this host's. Times to restore to are the server's.`,
    remedy: 'Synchronise both clocks (chrony or systemd-timesyncd: timedatectl set-ntp true).',
  };
}

type Look = (answers: Answers, source: ProbeSource) => Finding | undefined;

const standby: Look = ({ standby: is }) =>
  is === 't'
    ? {
        name: 'postgres.standby',
        level: 'problem',
        message: 'The server is a standby; this version backs up the primary only.',
        remedy: 'Give the address of the primary.',
      }
    : { name: 'postgres.standby', level: 'ok', message: 'The server is a primary.' };

const walLevel: Look = ({ wal_level }) =>
  wal_level === 'minimal'
    ? {
        name: 'postgres.wal-level',
        level: 'problem',
        message: 'wal_level is minimal: the log does not hold what recovery needs.',
        remedy: 'ALTER SYSTEM SET wal_level = replica; -- then restart the server',
      }
    : { name: 'postgres.wal-level', level: 'ok', message: `wal_level is ${wal_level}.` };

/** Capture takes one sender; a snapshot two more and a slot. */
const senders: Look = ({ max_wal_senders, senders: used }) => {
  const name = 'postgres.wal-senders';
  const free = Number(max_wal_senders) - Number(used);
  const message = `max_wal_senders is ${max_wal_senders}, ${used} in use; capture takes 1 and a snapshot 2.`;
  if (free >= 3) return { name, level: 'ok', message };
  const remedy = `ALTER SYSTEM SET max_wal_senders = ${Number(used) + 5}; -- then restart the server`;
  return { name, level: free < 2 ? 'problem' : 'warning', message, remedy };
};

const slots: Look = ({ max_replication_slots, slots: used, slot_type }) => {
  const name = 'postgres.replication-slots';
  const needed = slot_type === undefined ? 2 : 1;
  const free = Number(max_replication_slots) - Number(used);
  const message = `max_replication_slots is ${max_replication_slots}, ${used} in use; capture keeps 1 and a snapshot takes 1 for its time.`;
  if (free >= needed) return { name, level: 'ok', message };
  const remedy = `ALTER SYSTEM SET max_replication_slots = ${Number(used) + 5}; -- then restart the server; or drop slots that nobody uses: SELECT slot_name, active FROM pg_replication_slots;`;
  return { name, level: 'problem', message, remedy };
};

const slotState: Look = (answers, source) => {
  const name = 'postgres.slot';
  const { slot, slot_type, slot_active, wal_status, backlog } = answers;
  if (slot_type === undefined) {
    const remedy = `holdfast capture ${source.name}`;
    return {
      name,
      level: 'note',
      message: `The replication slot ${slot} does not exist yet; capture makes it.`,
      remedy,
    };
  }
  if (slot_type !== 'physical') {
    const message = `The replication slot ${slot} is ${slot_type}; capture needs a physical one.`;
    return {
      name,
      level: 'problem',
      message,
      remedy: 'Set another name with `slot` in the settings of the source.',
    };
  }
  if (wal_status === 'lost') {
    const message = `The server has invalidated the replication slot ${slot}: log that was not captured is gone, and the recovery window has a gap.`;
    const remedy = `holdfast capture ${source.name}   # makes the slot again; then: holdfast backup ${source.name}`;
    return { name, level: 'problem', message, remedy };
  }
  const behind = backlog === null || backlog === undefined ? 'nothing' : bytes(Number(backlog));
  const message = `The replication slot ${slot} is ${slot_active === 't' ? 'in use' : 'not in use'} and holds back ${behind} of log.`;
  if (slot_active === 't') return { name, level: 'ok', message };
  const remedy = `holdfast capture ${source.name}   # or, if this source is not captured any more: SELECT pg_drop_replication_slot('${slot}');`;
  return { name, level: 'warning', message, remedy };
};

const keepSize: Look = ({ max_slot_wal_keep_size: value }) => {
  const name = 'postgres.max-slot-wal-keep-size';
  if (value === '-1') {
    return {
      name,
      level: 'note',
      message:
        'max_slot_wal_keep_size is unlimited: while capture is down, log collects until the disk is full.',
      remedy:
        "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- more than an outage may collect, less than the disk has",
    };
  }
  return {
    name,
    level: 'note',
    message: `max_slot_wal_keep_size is ${bytes(Number(value) * 1024 * 1024)}: when capture falls behind further, the server drops log and the window has a gap.`,
  };
};

const idleSlot: Look = ({ idle_replication_slot_timeout: value }) =>
  value === undefined || value === '0'
    ? undefined
    : {
        name: 'postgres.idle-slot-timeout',
        level: 'warning',
        message: `idle_replication_slot_timeout is ${value} s: the server drops the slot when capture is down for so long.`,
        remedy: 'ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();',
      };

const senderTimeout: Look = ({ wal_sender_timeout: value }) => {
  const name = 'postgres.wal-sender-timeout';
  const ms = Number(value);
  if (ms >= 10_000) return { name, level: 'ok', message: `wal_sender_timeout is ${ms / 1000} s.` };
  const message =
    ms === 0
      ? 'wal_sender_timeout is 0: the server never notices when a receiver is gone without a word.'
      : `wal_sender_timeout is ${ms} ms: short pauses of the network end the stream.`;
  const remedy = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();";
  return { name, level: 'warning', message, remedy };
};

const fullPageWrites: Look = ({ full_page_writes: value }) =>
  value === 'on'
    ? { name: 'postgres.full-page-writes', level: 'ok', message: 'full_page_writes is on.' }
    : {
        name: 'postgres.full-page-writes',
        level: 'warning',
        message:
          'full_page_writes is off: after a crash of the machine torn pages stay torn. During a snapshot the server turns it on by itself.',
        remedy: 'ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();',
      };

const fsync: Look = ({ fsync: value }) =>
  value === 'on'
    ? { name: 'postgres.fsync', level: 'ok', message: 'fsync is on.' }
    : {
        name: 'postgres.fsync',
        level: 'warning',
        message: 'fsync is off: a crash of the machine can destroy the database without a trace.',
        remedy: 'ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();',
      };

const checksums: Look = ({ data_checksums: value }) =>
  value === 'on'
    ? {
        name: 'postgres.data-checksums',
        level: 'ok',
        message: 'Data checksums are on: snapshots find damaged pages.',
      }
    : {
        name: 'postgres.data-checksums',
        level: 'note',
        message: 'Data checksums are off: a page damaged on the server is backed up without being noticed.',
        remedy: 'pg_checksums --enable -D <data directory>   # with the server stopped',
      };

const archiving: Look = ({ archive_mode: value }) =>
  value === 'off'
    ? undefined
    : {
        name: 'postgres.archive-mode',
        level: 'note',
        message: `archive_mode is ${value}: another tool archives the log. Both may run side by side.`,
      };

const synchronous: Look = ({ synchronous_standby_names: value, synchronous_commit: commit }, source) => {
  if (value === null || value === undefined || value.trim() === '') return undefined;
  const name = 'postgres.synchronous-standbys';
  const us = source.connection.applicationName;
  const matches = value.includes('*') || value.split(/[\s,()"]+/).includes(us);
  if (!matches) {
    return {
      name,
      level: 'ok',
      message: `synchronous_standby_names is ${value}; capture (${us}) is not among them.`,
    };
  }
  const applied =
    commit === 'remote_apply'
      ? ' With synchronous_commit = remote_apply a commit counts as applied when it is stored.'
      : '';
  return {
    name,
    level: 'warning',
    message: `synchronous_standby_names is ${value}, which matches capture (${us}): commits wait until the repository has them, and hang while it is out of reach.${applied}`,
    remedy:
      "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)'; SELECT pg_reload_conf(); -- with the names of your standbys in place of *",
  };
};

const walKeep: Look = ({ wal_keep_size: value }) =>
  value === undefined || value === '0'
    ? undefined
    : {
        name: 'postgres.wal-keep-size',
        level: 'note',
        message: `wal_keep_size keeps ${value} MiB of log; with a slot that is not needed for capture.`,
      };

const rights: Look = ({ all_settings, role }) =>
  all_settings === 't'
    ? { name: 'postgres.rights', level: 'ok', message: `The role "${role}" may see every setting.` }
    : {
        name: 'postgres.rights',
        level: 'warning',
        message: `The role "${role}" may not see every setting, so snapshots lack some and configuration files elsewhere.`,
        remedy: `GRANT pg_read_all_settings, pg_read_server_files TO ${identifier(role ?? '')}; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO ${identifier(role ?? '')};`,
      };

const looks: readonly Look[] = [
  ...[standby, walLevel, senders, slots, slotState, keepSize, idleSlot, senderTimeout],
  ...[fullPageWrites, fsync, checksums, archiving, synchronous, walKeep, rights],
];

function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Math.max(0, count);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
