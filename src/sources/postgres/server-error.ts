/** Turns what a server refuses with into errors that say what to do (SQLSTATEs: PostgreSQL documentation, appendix A). */
import { isIPv6 } from 'node:net';
import { type ErrorCode, type ErrorDetails, HoldfastError } from '../../core/errors.ts';

/** To whom we spoke, for messages and remedies. */
export interface Counterpart {
  /** Without secrets. */
  readonly address: string;
  readonly user: string;
  readonly database: string;
  readonly replication: boolean;
  readonly passwordGiven: boolean;
  readonly passwordNote: string | undefined;
}

interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
  readonly next?: string | undefined;
}

/** Builds the error for an ErrorResponse's fields. Keeps SQLSTATE and the server's own words in the details. */
export function serverError(fields: ReadonlyMap<string, string>, to: Counterpart): HoldfastError {
  const sqlState = fields.get('C') ?? '';
  const said = fields.get('M') ?? 'no message';
  const refusal = pooler(said, to) ?? byState(sqlState, said, fields, to);
  const details: Record<string, string> = { sqlState, serverMessage: said, address: to.address };
  for (const [letter, name] of [
    ['V', 'severity'],
    ['D', 'serverDetail'],
    ['H', 'serverHint'],
  ] as const) {
    const value = fields.get(letter);
    if (value !== undefined) details[name] = value;
  }
  return new HoldfastError(refusal.code, refusal.message, {
    ...(refusal.next === undefined ? {} : { next: refusal.next }),
    details: details satisfies ErrorDetails,
  });
}

/** Text that only poolers send: PgBouncer refuses start-up parameters, and reports servers behind it in these words. */
const poolerWords =
  /unsupported startup parameter|^bouncer |pgbouncer|server login has been failing|no such database: |not allowed to use replication/i;

function pooler(said: string, to: Counterpart): Refusal | undefined {
  if (!poolerWords.test(said)) return undefined;
  return {
    code: 'postgres.pooler',
    message: `${to.address} is a connection pooler (PgBouncer), not PostgreSQL itself; it answered: ${said}.`,
    next: 'Give the direct address of the PostgreSQL server: its own host and port (usually 5432), as they stand in the [databases] section of pgbouncer.ini.',
  };
}

function byState(state: string, said: string, fields: ReadonlyMap<string, string>, to: Counterpart): Refusal {
  const name = quoteIdentifier(to.user);
  if (/pg_hba\.conf/.test(said)) return notAdmitted(said, to);
  if (state === '28P01' || state === '28000') return loginFailed(said, to);
  if (to.replication && /superuser or replication role|permission denied to start WAL sender/.test(said)) {
    return {
      code: 'postgres.no-replication-right',
      message: `The PostgreSQL user "${to.user}" at ${to.address} may not replicate: ${said}.`,
      next: `As a superuser, run: ALTER ROLE ${name} REPLICATION;`,
    };
  }
  if (state === '53300') return tooMany(said, to);
  const simple = slotCode(state, said) ?? simpleStates[state];
  if (simple !== undefined) return { code: simple, message: sentence(to, said, fields) };
  return { code: 'postgres.statement-failed', message: sentence(to, said, fields) };
}

const simpleStates: Readonly<Record<string, ErrorCode>> = {
  '3D000': 'postgres.no-such-database',
  '42501': 'postgres.denied',
  '57014': 'postgres.statement-cancelled',
  '55P03': 'postgres.statement-cancelled',
  '57P01': 'postgres.not-ready',
  '57P02': 'postgres.not-ready',
  '57P03': 'postgres.not-ready',
};

/** These states are used for other objects too. */
function slotCode(state: string, said: string): ErrorCode | undefined {
  if (state === '58P01' && /requested WAL segment .* has already been removed/.test(said))
    return 'postgres.wal-removed';
  if (!/replication slot/.test(said)) return undefined;
  if (state === '55000' && /can no longer|cannot read from/.test(said)) return 'postgres.wal-removed';
  const codes: Readonly<Record<string, ErrorCode>> = {
    '42704': 'postgres.slot-missing',
    '42710': 'postgres.slot-exists',
    '55006': 'postgres.slot-in-use',
  };
  return codes[state];
}

function sentence(to: Counterpart, said: string, fields: ReadonlyMap<string, string>): string {
  const detail = fields.get('D');
  return `PostgreSQL at ${to.address} answered: ${said}${detail === undefined ? '' : ` (${detail.replace(/\.$/, '')})`}.`;
}

function loginFailed(said: string, to: Counterpart): Refusal {
  const message = `PostgreSQL at ${to.address} did not let user "${to.user}" in: ${said}.`;
  if (/does not exist|not permitted to log in/.test(said)) {
    return {
      code: 'postgres.authentication-failed',
      message,
      next: `Correct the user in the address, or, as a superuser, run: CREATE ROLE ${quoteIdentifier(to.user)} LOGIN REPLICATION PASSWORD '…';`,
    };
  }
  return {
    code: 'postgres.authentication-failed',
    message: to.passwordNote === undefined ? message : `${message} ${to.passwordNote}.`,
    ...(to.passwordGiven
      ? {}
      : { next: 'Give a password: in the URL, in PGPASSWORD, or in ~/.pgpass (chmod 600).' }),
  };
}

function tooMany(said: string, to: Counterpart): Refusal {
  const senders = /max_wal_senders/.test(said);
  return {
    code: 'postgres.too-many-connections',
    message: `PostgreSQL at ${to.address} has no connection left: ${said}.`,
    next: senders
      ? 'Raise max_wal_senders (ALTER SYSTEM SET max_wal_senders = 10; then restart), or stop a receiver: SELECT * FROM pg_stat_replication;'
      : 'Close connections that are not needed (SELECT * FROM pg_stat_activity;), or raise max_connections or the limit of the role.',
  };
}

const hbaForm =
  /host "([^"]*)"(?:.*?user "([^"]*)")?(?:.*?database "([^"]*)")?(?:.*?(SSL on|SSL encryption))?/;

function notAdmitted(said: string, to: Counterpart): Refusal {
  const [, host = '', user = to.user, , encrypted] = hbaForm.exec(said) ?? [];
  const database = /replication connection/.test(said) ? 'replication' : hbaName(to.database);
  const line =
    host === '[local]' || host === ''
      ? `local ${database} ${hbaName(user)} scram-sha-256`
      : `${encrypted ? 'hostssl' : 'host'} ${database} ${hbaName(user)} ${host}/${isIPv6(host) ? 128 : 32} scram-sha-256`;
  const rejected = /rejects/.test(said);
  return {
    code: 'postgres.not-admitted',
    message: `PostgreSQL at ${to.address} admits no such connection: ${said}.`,
    next: `${rejected ? 'Above the line with "reject", add' : 'Add'} this line to pg_hba.conf (SHOW hba_file; tells where it is), then run SELECT pg_reload_conf();\n  ${line}`,
  };
}

function hbaName(name: string): string {
  const plain =
    /^[a-z_][a-z0-9_]*$/.test(name) && !['all', 'sameuser', 'samerole', 'replication'].includes(name);
  return plain ? name : `"${name.replaceAll('"', '""')}"`;
}

function quoteIdentifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
