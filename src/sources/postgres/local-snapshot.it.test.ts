import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { OpenedSnapshot, SnapshotStats } from '../../repository/contract.ts';
import { openSource } from '../open.ts';
import { testContext } from './memory-repository.test-helper.ts';
import { addressOf, ask, one, Rescue } from './rescue.test-helper.ts';
import type { ScratchAddress } from './scratch-connection.ts';
import { serverUser } from './server-user.ts';

interface Taken {
  readonly snapshot: OpenedSnapshot;
  readonly stats: SnapshotStats;
  readonly warnings: readonly string[];
}

async function take(rescue: Rescue, options: { full?: boolean; settings?: object } = {}): Promise<Taken> {
  const context = testContext();
  const url = `postgresql://postgres@127.0.0.1:${rescue.source.port}/postgres`;
  const writer = await rescue.repository.writer();
  const run = await writer.beginSnapshot({ source: 'ledger', kind: 'postgres' }, context);
  try {
    const source = openSource('ledger', 'postgres', { url, snapshot: 'local', ...options.settings });
    const facts = await source.snapshot({ ...context, sink: run, full: options.full === true });
    const { header, stats } = await run.publish(facts);
    rescue.snapshot = await rescue.reader.openSnapshot(header, context.signal);
    return { snapshot: rescue.snapshot, stats, warnings: facts.warnings };
  } finally {
    await run.discard();
  }
}

/** Restores the bare snapshot and starts it. */
async function restored(rescue: Rescue, name: string, snapshot: OpenedSnapshot): Promise<ScratchAddress> {
  rescue.snapshot = snapshot;
  const stop = { before: null, lineage: snapshot.header.lineage, lastCommit: null, firstExcluded: null };
  return addressOf(await rescue.restore(name, stop, { parts: [] }));
}

/** Digests of all files as they come back. */
async function contents(rescue: Rescue, name: string, snapshot: OpenedSnapshot) {
  const root = join(rescue.root, name);
  await mkdir(root);
  const paths: string[] = [];
  await rescue.reader.extract(
    snapshot,
    {
      sync: false,
      place: (entry) => {
        if (entry.type === 'file') paths.push(entry.path);
        return join(root, entry.path);
      },
    },
    testContext(),
  );
  const found = new Map<string, string>();
  for (const path of paths) {
    const bytes = await readFile(join(root, path));
    found.set(path, createHash('sha256').update(bytes).digest('hex'));
  }
  await rm(root, { recursive: true });
  return found;
}

/** What differs between any two backups of the same data. */
const perBackup =
  /^(backup_label|tablespace_map|global\/pg_control|pg_wal\/|pg_logical\/|pg_xact\/|pg_stat\/)/;

const fingerprint = (table: string) =>
  `SELECT coalesce(md5(string_agg(md5(t::text), '' ORDER BY t::text)), 'empty') FROM ${table} t`;

async function fingerprints(address: ScratchAddress): Promise<Record<string, string>> {
  const tables = await ask<{ name: string }>(
    address,
    `SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE relkind = 'r' AND relpersistence = 'p' AND nspname = 'public' ORDER BY 1`,
  );
  const found: Record<string, string> = {};
  for (const { name } of tables) found[name] = await one(address, fingerprint(name));
  return found;
}

let rescue: Rescue;
let space: string;

async function pgbench(args: readonly string[]): Promise<void> {
  const user = await serverUser();
  const child = spawn(
    join(rescue.binDir, 'pgbench'),
    ['-h', '127.0.0.1', '-p', String(rescue.source.port), '-U', 'postgres', ...args, 'postgres'],
    { stdio: 'ignore', cwd: '/tmp', ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }) },
  );
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (status) =>
      status === 0 ? resolve() : reject(new Error(`pgbench ended with ${status}`)),
    );
  });
}

const sql = (statement: string) => ask(rescue.source.connection, statement);

beforeAll(async () => {
  rescue = await Rescue.begin();
  space = join(rescue.root, 'space');
  await mkdir(space, { mode: 0o700 });
  const user = await serverUser();
  if (user !== undefined) await chown(space, user.uid, user.gid);
  await chmod(rescue.root, 0o755);
  await sql(`CREATE TABLESPACE extra LOCATION '${space}'`);
  await pgbench(['-i', '-q', '-s', '4']);
  for (const statement of [
    'CREATE TABLE big AS SELECT i AS id, md5(i::text) AS a, md5((i * 7)::text) AS b FROM generate_series(1, 150000) i',
    'CREATE TABLE far (id int, note text) TABLESPACE extra',
    'INSERT INTO far SELECT i, md5(i::text) FROM generate_series(1, 5000) i',
    'CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 5000) AS id',
    // Else the next reading of each page sets its hint bits, which changes it.
    'VACUUM FREEZE',
    'CHECKPOINT',
  ])
    await sql(statement);
}, 120_000);
afterAll(() => rescue?.end());

describe('a local snapshot', () => {
  it('stores only what changed, and is what a full one is, page by page', async () => {
    const first = await take(rescue);
    expect(first.warnings).toEqual([]);
    // Pages that change, scattered: one row in a hundred, in place.
    await sql('UPDATE big SET a = md5(a) WHERE id % 10000 = 17');
    await sql('CHECKPOINT');
    const second = await take(rescue);
    const third = await take(rescue, { full: true });
    expect(third.stats.storedBytes).toBeGreaterThan(second.stats.storedBytes * 8);
    const incremental = await contents(rescue, 'incremental', second.snapshot);
    const full = await contents(rescue, 'full', third.snapshot);
    const names = (found: Map<string, string>) =>
      [...found.keys()].filter((path) => !path.startsWith('pg_wal/')).sort();
    expect(names(incremental)).toEqual(names(full));
    for (const [path, digest] of full) {
      if (!perBackup.test(path)) expect(incremental.get(path), path).toBe(digest);
    }
  }, 120_000);

  it('holds what BASE_BACKUP sends, and nothing that must not come back', async () => {
    const database = await one<string>(
      rescue.source.connection,
      "SELECT oid::text FROM pg_database WHERE datname = 'postgres'",
    );
    const planted = {
      out: [
        ...[`base/${database}/t3_99999`, `base/${database}/t3_99999_fsm`, 'base/pgsql_tmp/pgsql_tmp1.0'],
        ...['global/pg_internal.init.7', 'standby.signal', 'backup_label.old', 'current_logfiles'],
        ...['postgresql.auto.conf.tmp', 'pg_stat_tmp/left', 'pg_replslot/left', 'pg_subtrans/0000'],
        ...['backup_manifest', 'tablespace_map.old', 'recovery.done'],
      ],
      in: ['pg_stat/notes.txt', 'base-notes', 'base.txt', 'pg_stat/kept', 'größe'],
    };
    for (const path of [...planted.out, ...planted.in]) {
      await mkdir(join(rescue.source.dataDir, path, '..'), { recursive: true });
      await writeFile(join(rescue.source.dataDir, path), `planted ${path}`, { mode: 0o644 });
    }
    await symlink('/etc', join(rescue.source.dataDir, 'elsewhere'));
    await symlink('base.txt', join(rescue.source.dataDir, 'linked.txt'));
    const local = await take(rescue);
    const remote = await take(rescue, { settings: { snapshot: 'remote' } });
    const [ours, theirs] = [
      await contents(rescue, 'local', local.snapshot),
      await contents(rescue, 'remote', remote.snapshot),
    ];
    for (const path of planted.out) expect(ours.has(path), path).toBe(false);
    for (const path of planted.in) expect(ours.has(path), path).toBe(true);
    // Links outside of tablespaces: BASE_BACKUP leaves them all out.
    expect(local.warnings.join()).toMatch(/elsewhere is not in the snapshot: it is a link to \/etc/);
    expect(ours.get('linked.txt')).toBe(ours.get('base.txt'));
    ours.delete('linked.txt');
    // Sent by the server, but of no use in any other place.
    theirs.delete('current_logfiles');
    const names = (found: Map<string, string>) =>
      [...found.keys()].filter((path) => !/^pg_wal\/|^tablespace_map$/.test(path)).sort();
    expect(names(ours)).toEqual(names(theirs));
    for (const [path, digest] of theirs) if (!perBackup.test(path)) expect(ours.get(path), path).toBe(digest);
    for (const path of [...planted.out, ...planted.in, 'elsewhere', 'linked.txt'])
      await rm(join(rescue.source.dataDir, path), { recursive: true, force: true });
  }, 120_000);

  it('comes back in a chain of incrementals under load, with everything that happens to files', async () => {
    const happenings = [
      ['TRUNCATE far', "INSERT INTO far SELECT i, 'again' FROM generate_series(1, 300) i"],
      ['CREATE DATABASE one_db STRATEGY wal_log', 'CREATE DATABASE two_db STRATEGY file_copy'],
      ['DELETE FROM big WHERE id % 3 = 0', 'VACUUM FULL big', 'CREATE INDEX ON big (a)'],
      ['DROP DATABASE one_db', 'ALTER TABLE big SET TABLESPACE extra', 'VACUUM big'],
      [
        'DROP TABLE far',
        'CREATE TABLE far AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 9000) i',
      ],
    ];
    for (const [round, statements] of happenings.entries()) {
      const load = pgbench(['-n', '-c', '4', '-T', '3']);
      for (const statement of statements) await sql(statement);
      const { snapshot, warnings } = await take(rescue);
      expect(warnings).toEqual([]);
      await load;
      const address = await restored(rescue, `under-load-${round}`, snapshot);
      const [sums] = await ask<Record<string, string>>(
        address,
        `SELECT (SELECT sum(abalance) FROM pgbench_accounts) AS a, (SELECT sum(bbalance) FROM pgbench_branches) AS b,
                (SELECT sum(tbalance) FROM pgbench_tellers) AS t, (SELECT sum(delta) FROM pgbench_history) AS h,
                (SELECT count(*) FROM pgbench_history) AS n, (SELECT count(*) FROM passing) AS u`,
      );
      expect([sums!.b, sums!.t, sums!.h]).toEqual([sums!.a, sums!.a, sums!.a]);
      expect(Number(sums!.n)).toBeGreaterThan(0);
      expect(sums!.u).toBe('0');
      await rescue.endRestored();
      await rm(join(rescue.root, `under-load-${round}`), { recursive: true });
      if (round < happenings.length - 1) continue;
      // With nobody writing, every row must be what it is on the source.
      const still = await take(rescue);
      const expected = await fingerprints(rescue.source.connection);
      const again = await restored(rescue, `still-${round}`, still.snapshot);
      expect(await fingerprints(again)).toEqual(expected);
      expect(await one(again, `SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database`)).toBe(
        await one(
          rescue.source.connection,
          `SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database`,
        ),
      );
      await rescue.endRestored();
      await rm(join(rescue.root, `still-${round}`), { recursive: true });
    }
  }, 240_000);
});

describe.each([13, 14, 16, 17, 18] as const)('PostgreSQL %i', (major) => {
  it('is read locally, whole and then what changed, and restored', async () => {
    const other = await Rescue.begin({ major });
    try {
      await ask(
        other.source.connection,
        'CREATE TABLE t AS SELECT i, md5(i::text) AS m FROM generate_series(1, 20000) i',
      );
      const first = await take(other);
      await ask(other.source.connection, 'UPDATE t SET m = m WHERE i = 77');
      const second = await take(other);
      expect([...first.warnings, ...second.warnings]).toEqual([]);
      expect(second.stats.storedBytes).toBeLessThan(first.stats.storedBytes);
      const address = await restored(other, 'restored', second.snapshot);
      expect(await one(address, fingerprint('t'))).toBe(await one(other.source.connection, fingerprint('t')));
    } finally {
      await other.end();
    }
  }, 120_000);
});
