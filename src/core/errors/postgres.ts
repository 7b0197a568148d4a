import { defineErrors } from './define.ts';

export const postgresErrors = defineErrors({
  'postgres.unsupported-version': {
    exit: 4,
    summary: 'The PostgreSQL server is of a version that Holdfast does not support.',
    explanation:
      'PostgreSQL 13 to 18 are supported. Another version may use other file formats or another protocol.',
    next: 'Use a supported PostgreSQL version.',
  },
  'postgres.wal-invalid': {
    exit: 5,
    summary: 'The write-ahead log that was received or read is not one that PostgreSQL can have written.',
    explanation:
      'A page or record contradicts itself or its place: damage on the way or on the disk, or a server of another build. Nothing of it was acknowledged, so the server keeps its copy.',
    next: 'Look at the named place with `pg_waldump` on the server; if its own copy is sound, start capture again.',
  },
  'postgres.invalid-address': {
    exit: 2,
    summary: 'The address of a PostgreSQL server is malformed or asks for something that is not supported.',
    explanation:
      'A URL, a keyword or a PG… variable could not be used. Settings that would have to be ignored are refused by name, because ignoring them could matter. Nothing was contacted.',
    next: 'Correct the address: postgres://user@host:5432/database.',
  },
  'postgres.authentication-failed': {
    exit: 4,
    summary: 'PostgreSQL did not accept the user or the password.',
    explanation: 'The server answered and refused the log-in. Nothing was read.',
    next: 'Check user and password (URL, PGPASSWORD or ~/.pgpass), then run the command again.',
  },
  'postgres.authentication-unsupported': {
    exit: 4,
    summary: 'PostgreSQL asks for a way to log in that Holdfast does not know.',
    explanation:
      'Password, SCRAM-SHA-256, MD5, certificate, peer and trust are known; GSSAPI, SSPI and OAuth are not.',
    next: 'Add a line with scram-sha-256 for this user to pg_hba.conf, above the one that fits now.',
  },
  'postgres.cleartext-refused': {
    exit: 4,
    summary: 'PostgreSQL asks for the password in clear over a connection that is not encrypted.',
    explanation: 'Anyone on the way could read it, so it was not sent.',
    next: 'Use TLS (sslmode=require or better) or scram-sha-256 in pg_hba.conf. Say sslmode=disable only where nobody can listen.',
  },
  'postgres.not-admitted': {
    exit: 4,
    summary: 'pg_hba.conf of the PostgreSQL server does not admit this connection.',
    explanation:
      'The server answered, but no line of its pg_hba.conf admits this user from this machine in this way. Replication needs a line of its own.',
    next: 'Add the line that the message names to pg_hba.conf and run: SELECT pg_reload_conf();',
  },
  'postgres.no-replication-right': {
    exit: 4,
    summary: 'The PostgreSQL user may not replicate.',
    explanation:
      'Base backups and log capture use the replication protocol, which needs the REPLICATION attribute.',
    next: 'As a superuser, run: ALTER ROLE name REPLICATION;',
  },
  'postgres.no-such-database': {
    exit: 3,
    summary: 'The PostgreSQL server has no such database.',
    explanation:
      'The server answered and accepted the user, but the database named in the address does not exist.',
    next: 'Correct the database in the address, or create it.',
  },
  'postgres.too-many-connections': {
    exit: 7,
    summary: 'The PostgreSQL server has no connection left to give.',
    explanation: 'max_connections, max_wal_senders or a limit of the role or database is used up.',
    next: 'Close connections that are not needed, or raise the limit that the message names; then run the command again.',
  },
  'postgres.not-ready': {
    exit: 7,
    summary: 'The PostgreSQL server is starting up, shutting down or recovering.',
    explanation: 'It answered but takes no work now.',
    next: 'Wait until the server is up, then run the command again.',
  },
  'postgres.pooler': {
    exit: 4,
    summary: 'The address is that of a connection pooler (PgBouncer), not of PostgreSQL itself.',
    explanation:
      'A pooler shares server connections among clients and does not pass the replication protocol on reliably. Backup and capture need the server itself.',
    next: 'Give the direct address of the PostgreSQL server (its own host and port, usually 5432).',
  },
  'postgres.tls-refused': {
    exit: 4,
    summary: 'The PostgreSQL server offers no TLS, and the settings require it.',
    explanation: 'Nothing was sent over the unencrypted connection.',
    next: 'Turn on ssl in postgresql.conf, or, where nobody can listen, say sslmode=disable.',
  },
  'postgres.protocol': {
    exit: 1,
    summary: 'The other side does not speak the PostgreSQL protocol as documented.',
    explanation:
      'The address may be that of another service, or something on the way changed the bytes. The connection was closed.',
    next: 'Check that host and port are those of a PostgreSQL server.',
  },
  'postgres.slot-missing': {
    exit: 3,
    summary: 'The replication slot does not exist.',
    explanation:
      'It was dropped, or the server was replaced by one without it. Without the slot the server may have removed WAL that was not captured.',
    next: 'See the slots with: SELECT * FROM pg_replication_slots;',
  },
  'postgres.slot-exists': {
    exit: 4,
    summary: 'A replication slot of this name exists already.',
    explanation: 'Names of slots are unique in a server.',
    next: 'See the slots with: SELECT * FROM pg_replication_slots;',
  },
  'postgres.slot-in-use': {
    exit: 8,
    summary: 'The replication slot is in use by another connection.',
    explanation:
      'Only one receiver at a time can read from a slot: another capture may run, or the server has not yet noticed that one is gone.',
    next: 'See who uses it: SELECT slot_name, active_pid FROM pg_replication_slots;',
  },
  'postgres.wal-removed': {
    exit: 3,
    summary: 'The server no longer has the WAL that was asked for.',
    explanation:
      'It was recycled before it was captured, so the log has a gap there. Snapshots and windows before and after it stay good.',
    next: 'Take a new snapshot, and keep the replication slot so that the server holds WAL back.',
  },
  'postgres.denied': {
    exit: 4,
    summary: 'PostgreSQL does not permit this to the user.',
    explanation: 'The statement needs a right that the role does not have.',
    next: 'Grant the right that the message names, or use another role.',
  },
  'postgres.statement-cancelled': {
    exit: 1,
    summary: 'PostgreSQL cancelled the statement.',
    explanation: 'Its own statement_timeout or lock_timeout ran out, or someone cancelled it.',
    next: 'Look at statement_timeout of the role and the database; then run the command again.',
  },
  'postgres.statement-failed': {
    exit: 1,
    summary: 'PostgreSQL refused a statement.',
    explanation: 'The message of the server says why; its SQLSTATE is in the details.',
    next: 'Look at the message of the server and into its log.',
  },
  'postgres.server-failed': {
    exit: 1,
    summary: 'A PostgreSQL server that Holdfast started did not come up or ended.',
    explanation:
      'Holdfast starts servers of its own for restored data, drills and the quickstart, never somebody else’s. The message holds the last lines of its log.',
    next: 'Read the lines of the log in the message; they say what the server missed.',
  },
  'postgres.standby': {
    exit: 4,
    summary: 'The PostgreSQL server is a standby.',
    explanation:
      'This version backs up and captures from the primary only: on a standby no slot of its own survives a failover, and its log cannot be marked.',
    next: 'Give the address of the primary.',
  },
  'postgres.other-cluster': {
    exit: 4,
    summary: 'The server at this address is another cluster than the one captured so far.',
    explanation:
      'Its system identifier differs from that of the log kept for this source. Continuing would join two histories that have nothing to do with each other. Nothing was changed.',
    next: 'Correct the address; or, if the cluster was really replaced (pg_upgrade, a new initdb), give it a source name of its own.',
  },
  'postgres.slot-unusable': {
    exit: 4,
    summary: 'The replication slot of the configured name cannot be used for capture.',
    explanation:
      'It is a logical slot, or belongs to something else. Holdfast changes no slot that it did not make.',
    next: 'Set another name with `slot` in the settings of the source.',
  },
  'postgres.backup-incomplete': {
    exit: 1,
    summary: 'The base backup did not come to its end.',
    explanation:
      'The server ended it, or the log that makes it consistent did not arrive in time. No snapshot exists; what was stored is harmless and is collected later.',
    next: 'Look into the log of the server, then run the backup again.',
  },
  'postgres.data-directory': {
    exit: 4,
    summary: 'The data directory cannot be read as that of the server.',
    explanation:
      'A local snapshot reads the files of the server. They must be on this host, readable, and proven to be those of the server at the address: same system identifier, same start and port in postmaster.pid, same checkpoint. Nothing was stored.',
    next: 'Set `dataDirectory` to the path of the data directory as this host sees it, or `snapshot: remote` to back up over the connection.',
  },
  'postgres.local-denied': {
    exit: 4,
    summary: 'The role may not begin a local snapshot.',
    explanation:
      'A local snapshot tells the server when it begins and ends, with pg_backup_start and pg_backup_stop, which only superusers and roles with the right to execute them may call. Nothing was stored.',
    next: 'Grant the rights that the message names, or set `snapshot: remote` to back up over the connection.',
  },
  'postgres.not-a-wal-file': {
    exit: 2,
    summary: 'The file is none that PostgreSQL archives.',
    explanation:
      'PostgreSQL archives WAL segments (24 hexadecimal digits), partial segments, timeline histories and backup histories. Nothing was stored.',
    next: 'Use the command as archive_command or restore_command, with %p and %f as they are.',
  },
  'postgres.wal-file-missing': {
    exit: 3,
    summary: 'The file that PostgreSQL asked to archive is not there.',
    explanation: 'The path that PostgreSQL gives counts from its data directory. Nothing was stored.',
    next: 'Run the command in the data directory of the server, as archive_command does.',
  },
  'postgres.archive-conflict': {
    exit: 4,
    summary: 'A file of this name with another content was archived before.',
    explanation:
      'Two servers archive as one source, or the server was put back to an older state and writes the same stretch of log anew. What was archived stays as it is; the new file was not stored, and PostgreSQL keeps it.',
    next: 'If two servers do this (a copy, a restored server, a split brain), turn archive_command off on the wrong one. If the server was put back on purpose, give it a source name of its own in the configuration and take a new snapshot.',
  },
  'postgres.history-missing': {
    exit: 3,
    summary: 'The history of a timeline is not at hand.',
    explanation:
      'Log of a later timeline is only of use with its history, which says where it left its parent. PostgreSQL keeps the file in pg_wal and archives it before the first segment. Nothing was stored.',
    next: 'Archive the history first: holdfast wal push pg_wal/<timeline>.history',
  },
});
