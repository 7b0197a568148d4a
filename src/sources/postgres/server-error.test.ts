import { describe, expect, it } from 'vitest';
import { type Counterpart, serverError } from './server-error.ts';

const to: Counterpart = {
  address: 'postgres://ann@db:5432/shop',
  user: 'ann',
  database: 'shop',
  replication: true,
  passwordGiven: true,
  passwordNote: undefined,
};

function errorOf(state: string, message: string, more: Partial<Counterpart> = {}) {
  const fields = new Map([
    ['V', 'FATAL'],
    ['C', state],
    ['M', message],
  ]);
  return serverError(fields, { ...to, ...more });
}

// Messages as servers of 13 to 18 and PgBouncer 1.18 word them.
describe('errors of the server', () => {
  it.each([
    ['28P01', 'password authentication failed for user "ann"', 'postgres.authentication-failed'],
    ['28000', 'role "ann" does not exist', 'postgres.authentication-failed'],
    ['42501', 'must be superuser or replication role to start walsender', 'postgres.no-replication-right'],
    ['42501', 'permission denied to start WAL sender', 'postgres.no-replication-right'],
    ['42501', 'permission denied for table x', 'postgres.denied'],
    ['53300', 'sorry, too many clients already', 'postgres.too-many-connections'],
    [
      '53300',
      'number of requested standby connections exceeds max_wal_senders (currently 2)',
      'postgres.too-many-connections',
    ],
    ['57P03', 'the database system is starting up', 'postgres.not-ready'],
    ['57P01', 'terminating connection due to administrator command', 'postgres.not-ready'],
    ['3D000', 'database "shop" does not exist', 'postgres.no-such-database'],
    ['42704', 'replication slot "s" does not exist', 'postgres.slot-missing'],
    ['42704', 'type "s" does not exist', 'postgres.statement-failed'],
    ['55006', 'replication slot "s" is active for PID 7', 'postgres.slot-in-use'],
    ['55006', 'database "x" is being accessed by other users', 'postgres.statement-failed'],
    ['42710', 'replication slot "s" already exists', 'postgres.slot-exists'],
    ['42710', 'role "s" already exists', 'postgres.statement-failed'],
    [
      '58P01',
      'requested WAL segment 000000010000000000000002 has already been removed',
      'postgres.wal-removed',
    ],
    ['55000', 'can no longer get changes from replication slot "s"', 'postgres.wal-removed'],
    ['55000', 'cannot read from replication slot "s"', 'postgres.wal-removed'],
    ['57014', 'canceling statement due to statement timeout', 'postgres.statement-cancelled'],
    ['08P01', 'unsupported startup parameter: replication', 'postgres.pooler'],
    ['22012', 'division by zero', 'postgres.statement-failed'],
  ])('%s %s', (state, message, code) => {
    const error = errorOf(state, message);
    expect(error.code).toBe(code);
    expect(error.message).toContain(message);
    expect(error.details).toMatchObject({ sqlState: state, serverMessage: message });
  });

  it.each([
    [
      'no pg_hba.conf entry for replication connection from host "10.0.0.7", user "ann", SSL encryption',
      'hostssl replication ann 10.0.0.7/32 scram-sha-256',
    ],
    [
      'no pg_hba.conf entry for replication connection from host "10.0.0.7", user "ann", no encryption',
      'host replication ann 10.0.0.7/32 scram-sha-256',
    ],
    [
      'no pg_hba.conf entry for replication connection from host "fe80::1", user "ann", SSL on',
      'hostssl replication ann fe80::1/128 scram-sha-256',
    ],
    [
      'no pg_hba.conf entry for host "10.0.0.7", user "ann", database "shop", SSL off',
      'host shop ann 10.0.0.7/32 scram-sha-256',
    ],
    [
      'no pg_hba.conf entry for host "[local]", user "Ann X", database "shop", no encryption',
      'local shop "Ann X" scram-sha-256',
    ],
    [
      'pg_hba.conf rejects replication connection for host "10.0.0.7", user "ann", SSL encryption',
      'hostssl replication ann 10.0.0.7/32 scram-sha-256',
    ],
  ])('gives the very line for: %s', (message, line) => {
    const error = errorOf('28000', message);
    expect(error.code).toBe('postgres.not-admitted');
    expect(error.next.split('\n').at(-1)?.trim()).toBe(line);
    expect(error.next).toContain('pg_reload_conf()');
  });

  it('says why a password file was not used', () => {
    const error = errorOf('28P01', 'password authentication failed for user "ann"', {
      passwordGiven: false,
      passwordNote: 'The password file /x was not used: other users can read it. Mend it with: chmod 600 /x',
    });
    expect(error.message).toContain('chmod 600 /x');
  });

  it('quotes the role in the remedy', () => {
    const error = errorOf('42501', 'permission denied to start WAL sender', { user: 'Ann"X' });
    expect(error.next).toContain('ALTER ROLE "Ann""X" REPLICATION;');
  });
});
