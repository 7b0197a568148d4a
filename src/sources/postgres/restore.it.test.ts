/** Restores with real servers, a real repository, and real log, cut into parts at odd places. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { postgresMajors, requireComponent } from '../../../scripts/rig.ts';
import type { Commit, OpenedSnapshot, RepositoryReader } from '../../repository/contract.ts';
import type { StopAt } from '../source.ts';
import { testContext } from './memory-repository.test-helper.ts';
import { lineageOf, lsnOf, positionOf, positions } from './position.ts';
import { addressOf, ask, bound, isAlive, one, Rescue } from './rescue.test-helper.ts';
import { restoreCluster } from './restore.ts';
import { launchServer } from './server.ts';
import { serverUser } from './server-user.ts';

const there = await requireComponent('postgres-15');
const run = promisify(execFile);

async function makeTablespaceFolder(path: string): Promise<void> {
  const user = await serverUser();
  await mkdir(path, { mode: 0o700 });
  if (user !== undefined) await chown(path, user.uid, user.gid);
}

describe.skipIf(!there)('a restore of PostgreSQL', () => {
  let rescue: Rescue;
  let captured: bigint;

  beforeAll(async () => {
    rescue = await Rescue.begin({
      settings: {
        max_prepared_transactions: '7',
        shared_preload_libraries: 'auto_explain',
        archive_mode: 'on',
        archive_command: 'false',
      },
    });
    const { connection } = rescue.source;
    const space = join(rescue.root, 'space');
    await makeTablespaceFolder(space);
    await ask(connection, `CREATE TABLESPACE extra LOCATION '${space}'`);
    await ask(connection, 'CREATE TABLE t (id int PRIMARY KEY, note text)');
    await ask(connection, 'CREATE TABLE far (id int) TABLESPACE extra');
    await ask(connection, 'INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 1000) g');
    await rescue.takeSnapshot();
    await ask(connection, 'INSERT INTO far SELECT generate_series(1, 5000)');
    for (let i = 1; i <= 5; i++) {
      const rows = `SELECT ${i}000 + g, repeat(md5(g::text), 20) FROM generate_series(1, 900) g`;
      await ask(connection, `INSERT INTO t ${rows}`);
    }
    await ask(connection, 'DROP TABLE far');
    captured = await rescue.capture();
  }, 120_000);

  afterEach(() => rescue.endRestored());
  afterAll(() => rescue?.end());

  it('brings back the latest moment, without the source’s entanglements', async () => {
    const restored = await rescue.restore('latest', rescue.latest());
    const address = addressOf(restored);
    const sum = 'SELECT count(*)::int AS n, md5(string_agg(id || note, $$,$$ ORDER BY id)) AS m FROM t';
    expect(await ask(address, sum)).toEqual(await ask(rescue.source.connection, sum));
    expect(await one(address, `SELECT to_regclass('far')::text`)).toBeNull();
    expect(restored.server).toMatchObject({ lineage: lineageOf(rescue.systemId, 2) });
    expect(lsnOf(restored.server!.reached)).toBeLessThanOrEqual(captured);
    expect(await one(address, 'SHOW archive_mode')).toBe('off');
    expect(await one(address, 'SHOW shared_preload_libraries')).toBe('auto_explain');
    expect(await one(address, 'SHOW max_prepared_transactions')).toBe('7');
    const files = await readdir(restored.to);
    expect(files).not.toContain('RESTORE-UNFINISHED.txt');
    expect(files).not.toContain('recovery.signal');
    expect(await readdir(join(restored.to, 'holdfast-restore'))).not.toContain('wal');
    expect((await stat(restored.to)).mode & 0o777).toBe(0o700);
    await ask(address, 'INSERT INTO t VALUES (-1)');
  });

  it('stops before the position asked for', async () => {
    const drop = rescue.commits.at(-1)!;
    const lastCommit = rescue.commits.at(-2)!;
    const stop = {
      before: positionOf(drop.position),
      lineage: lineageOf(rescue.systemId, 1),
      lastCommit: positionOf(lastCommit.position),
      firstExcluded: positionOf(drop.position),
    };
    const restored = await rescue.restore('before', stop);
    const address = addressOf(restored);
    expect(await one(address, 'SELECT count(*)::int FROM far')).toBe(5000);
    expect(await one(address, 'SELECT max(id) FROM t')).toBe(5900);
    // The tablespace is a copy beside the restored folder; the source's own is left alone.
    const places = await ask<{ place: string }>(
      address,
      `SELECT pg_tablespace_location(oid) AS place FROM pg_tablespace WHERE spcname = 'extra'`,
    );
    expect(dirname(places[0]!.place)).toBe(`${restored.to}.tablespaces`);

    const third = rescue.commits[3]!;
    const early = await rescue.restore('early', {
      before: positionOf(third.position),
      lineage: lineageOf(rescue.systemId, 1),
      lastCommit: positionOf(rescue.commits[2]!.position),
      firstExcluded: positionOf(third.position),
    });
    expect(await one(addressOf(early), 'SELECT max(id) FROM t')).toBe(2900);
  });

  it('puts a tablespace where it is told, by its OID or by its folder on the source', async () => {
    const space = join(rescue.root, 'space');
    const mapped = join(rescue.root, 'mapped');
    const stop = {
      before: null,
      lineage: lineageOf(rescue.systemId, 1),
      lastCommit: null,
      firstExcluded: null,
    };
    const restored = await rescue.restore('places', stop, { parts: [], places: new Map([[space, mapped]]) });
    const place = `SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'extra'`;
    expect(await one(addressOf(restored), place)).toBe(mapped);
    expect(await one(addressOf(restored), 'SELECT count(*)::int FROM far')).toBe(0);
    const restore = (places: [string, string][]) =>
      rescue.restore('misplaced', stop, { parts: [], places: new Map(places) });
    await expect(restore([['4711', mapped]])).rejects.toMatchObject({ code: 'recovery.unknown-tablespace' });
    await expect(restore([[space, mapped]])).rejects.toMatchObject({ code: 'recovery.target-not-empty' });
    await expect(restore([[space, join(rescue.root, 'misplaced', 'in')]])).rejects.toMatchObject({
      code: 'recovery.target-unusable',
    });
    expect(await readdir(rescue.root)).not.toContain('misplaced');
  });

  it('brings back a bare snapshot', async () => {
    const stop = {
      before: null,
      lineage: lineageOf(rescue.systemId, 1),
      lastCommit: null,
      firstExcluded: null,
    };
    const restored = await rescue.restore('bare', stop, { parts: [] });
    expect(await one(addressOf(restored), 'SELECT max(id) FROM t')).toBe(1000);
    expect(restored.server!.reached).toBe(rescue.snapshot.header.to);
  });

  it('leaves a folder that recovers by itself when it is started later', async () => {
    const restored = await rescue.restore('folder', rescue.latest(), { start: false });
    expect(restored.server).toBeNull();
    const [start, wait, connect] = restored.next as [string, string, string];
    await run('sh', ['-c', start]);
    await run('sh', ['-c', wait], { timeout: 30_000 });
    const pid = Number((await readFile(join(restored.to, 'postmaster.pid'), 'utf8')).split('\n')[0]);
    try {
      const psql = `${connect} -Atc`;
      const { stdout } = await run('sh', ['-c', `${psql} 'SELECT max(id), pg_is_in_recovery() FROM t'`]);
      expect(stdout.trim()).toBe('5900|f');
      const log = await readFile(join(restored.to, 'holdfast-restore', 'server.log'), 'utf8');
      expect(log).toContain('archive recovery complete');
      // Taking over is one script, and brings back what the source had.
      await run('sh', ['-c', `${connect} -v ON_ERROR_STOP=1 -f ${restored.to}/holdfast-restore/release.sql`]);
      const auto = await readFile(join(restored.to, 'postgresql.auto.conf'), 'utf8');
      expect(auto.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual([]);
    } finally {
      process.kill(pid, 'SIGQUIT');
      await expect.poll(() => isAlive(pid), { timeout: 20_000 }).toBe(false);
    }
  });

  it('refuses a folder that is not empty, and touches nothing in it', async () => {
    await mkdir(join(rescue.root, 'full'));
    await writeFile(join(rescue.root, 'full', 'precious'), '');
    await expect(rescue.restore('full', rescue.latest())).rejects.toMatchObject({
      code: 'recovery.target-not-empty',
    });
    expect(await readdir(join(rescue.root, 'full'))).toEqual(['precious']);
  });

  it('leaves a folder that cannot be started when it is interrupted', async () => {
    const abort = new AbortController();
    const interrupted: RepositoryReader = {
      ...bound(rescue.reader),
      openPart: async (header, signal) => {
        // Once the server is there: the headers were read before.
        if (signal !== abort.signal) abort.abort(new Error('interrupted'));
        return rescue.reader.openPart(header, signal);
      },
    };
    const failed = rescue.restore('torn', rescue.latest(), { reader: interrupted, signal: abort.signal });
    await expect(failed).rejects.toThrow('interrupted');
    const to = join(rescue.root, 'torn');
    expect(await readdir(to)).toContain('RESTORE-UNFINISHED.txt');
    expect(await readdir(join(to, 'global'))).not.toContain('pg_control');
    const server = await launchServer({ binDir: rescue.binDir, dataDir: to });
    expect((await server.exited).status).toBe(1);
    expect((await server.logTail()).join('\n')).toMatch(/syntax error|contains errors/);
    await server.stop();
    await expect(rescue.restore('torn', rescue.latest())).rejects.toMatchObject({
      code: 'recovery.target-not-empty',
      message: expect.stringContaining('unfinished restore'),
    });
  });

  it('says that log is missing, and never ends early instead', async () => {
    const all = await rescue.parts();
    const holed = all.filter((_, i) => i !== 2);
    await expect(rescue.restore('holed', rescue.latest(), { parts: holed })).rejects.toMatchObject({
      code: 'recovery.wal-missing',
    });
    await expect(rescue.restore('short', rescue.latest(), { parts: all.slice(0, 3) })).rejects.toMatchObject({
      code: 'recovery.wrong-position',
    });
    const server = await launchServer({ binDir: rescue.binDir, dataDir: join(rescue.root, 'short') });
    expect((await server.exited).status).toBe(1);
    await server.stop();
  });

  it('tells an unreachable repository from missing log', async () => {
    const { HoldfastError } = await import('../../core/errors.ts');
    const all = await rescue.parts();
    const failing: RepositoryReader = {
      ...bound(rescue.reader),
      openPart: (header, signal) =>
        header.name === all[3]!.name
          ? Promise.reject(new HoldfastError('storage.unreachable', 'The disk is gone.'))
          : rescue.reader.openPart(header, signal),
    };
    await expect(rescue.restore('gone', rescue.latest(), { reader: failing })).rejects.toMatchObject({
      code: 'storage.unreachable',
      message: expect.stringContaining('can be deleted'),
    });
  });

  it('stops the server and says why when its log cannot be looked after', async () => {
    const to = join(rescue.root, 'blind');
    let blinded = false;
    const blinding: RepositoryReader = {
      ...bound(rescue.reader),
      openPart: async (header, signal) => {
        // In the place where the server's requests are read. Root has every right, so that no mode would do.
        const spool = join(to, 'holdfast-restore', 'wal');
        const spooling = await stat(spool).then(
          () => true,
          () => false,
        );
        if (spooling && !blinded) {
          blinded = true;
          await rm(join(spool, 'wanted'), { force: true });
          await mkdir(join(spool, 'wanted'));
        }
        return rescue.reader.openPart(header, signal);
      },
    };
    const failed = rescue.restore('blind', rescue.latest(), { reader: blinding });
    await expect(failed).rejects.toMatchObject({
      code: 'system.file-failed',
      message: expect.stringMatching(/EISDIR.*stopped[\s\S]*can be deleted/),
    });
    await expect(stat(join(to, 'postmaster.pid'))).rejects.toThrow(/ENOENT/);
  });

  it('says what to install for another version', async () => {
    const other = {
      ...bound(rescue.snapshot),
      meta: { ...rescue.snapshot.meta, version: 120_004 },
    } as OpenedSnapshot;
    const failed = restoreCluster({
      ...testContext(),
      reader: rescue.reader,
      snapshot: other,
      parts: [],
      stop: rescue.latest(),
      to: join(rescue.root, 'other'),
      start: true,
    });
    await expect(failed).rejects.toMatchObject({
      code: 'recovery.no-server-binaries',
      next: expect.stringContaining('postgresql-12'),
    });
    await expect(stat(join(rescue.root, 'other'))).rejects.toThrow(/ENOENT/);
  });

  it.each([500, 1000])(
    'that is killed after %i ms leaves nothing that runs or can be started',
    async (ms) => {
      const to = join(rescue.root, `killed-${ms}`);
      const here = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
      const script = `
      import { Repository } from ${here('../../repository/repository.ts')};
      import { openStore } from ${here('../../storage/open.ts')};
      import { restoreCluster } from ${here('./restore.ts')};
      import { testContext } from ${here('./memory-repository.test-helper.ts')};
      const context = testContext();
      const store = await openStore(${JSON.stringify(join(rescue.root, 'repository'))});
      const repository = await Repository.open(store, null, context);
      const reader = await repository.reader({ identity: process.env.IDENTITY }, context);
      const [header] = await repository.snapshots('ledger', context.signal, []);
      const snapshot = await reader.openSnapshot(header, context.signal);
      const parts = (await repository.logParts('ledger', context.signal, [])).filter((part) => part.lineage.endsWith('/1'));
      process.stdout.write('ready');
      await new Promise((resolve) => setTimeout(resolve, 10));
      const stop = ${JSON.stringify(rescue.latest())};
      await restoreCluster({ ...context, reader, snapshot, parts, stop, to: ${JSON.stringify(to)}, start: true });
      setInterval(() => undefined, 1000);`;
      const file = join(rescue.root, `killed-${ms}.mjs`);
      await writeFile(file, script);
      const child = spawn(process.execPath, [file], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, IDENTITY: rescue.identity },
      });
      const closed = once(child, 'close');
      await once(child.stdout, 'data');
      await new Promise((resolve) => setTimeout(resolve, ms));
      child.kill('SIGKILL');
      await closed;
      const left = await readdir(to).catch(() => ['RESTORE-UNFINISHED.txt']);
      const pids = async (): Promise<number[]> => (await serversIn(to)).filter(isAlive);
      if (left.includes('RESTORE-UNFINISHED.txt')) {
        // The server, if there was one already, ends by itself: there is nobody who would bring it its log.
        await expect.poll(pids, { timeout: 20_000 }).toEqual([]);
        // Whatever there is cannot be started.
        await mkdir(to, { recursive: true });
        const server = await launchServer({ binDir: rescue.binDir, dataDir: to });
        expect((await server.exited).status).not.toBe(0);
        await server.stop();
      } else {
        // It was finished: then it is the whole.
        const [pid] = await pids();
        process.kill(pid!, 'SIGQUIT');
        await expect.poll(pids, { timeout: 20_000 }).toEqual([]);
      }
    },
  );

  it('restores a second time, to a moment after the first restore', async () => {
    const first = await rescue.restore('first', rescue.before(-1));
    const address = addressOf(first);
    await ask(address, 'INSERT INTO far VALUES (77777)');
    await ask(address, 'INSERT INTO t SELECT 10000 + g FROM generate_series(1, 9000) g');
    const switched = lsnOf(first.server!.reached);
    const mine: Commit[] = [];
    await rescue.captureOf({ dataDir: first.to, connection: address }, 2, switched, mine);
    const stop: StopAt = {
      before: null,
      lineage: lineageOf(rescue.systemId, 2),
      lastCommit: positionOf(mine.at(-1)!.position),
      firstExcluded: null,
    };
    const old = (await rescue.parts(1)).filter((part) => lsnOf(part.from) < switched);
    const fresh = await rescue.parts(2);
    const second = await rescue.restore('second', stop, { parts: [...old, ...fresh] });
    expect(second.server!.lineage).toBe(lineageOf(rescue.systemId, 3));
    expect(await one(addressOf(second), 'SELECT max(id) FROM far')).toBe(77777);
    expect(await one(addressOf(second), 'SELECT max(id) FROM t')).toBe(19_000);

    // To the end of the timeline that the first restore left, and not to that restore's.
    const third = await rescue.restore('third', rescue.latest(), { parts: await rescue.parts(1) });
    expect(await one(addressOf(third), `SELECT to_regclass('far')::text`)).toBeNull();
    expect(await one(addressOf(third), 'SELECT max(id) FROM t')).toBe(5900);
  });
});

describe.skipIf(!there)('a restore of a server with entanglements', () => {
  let rescue: Rescue;

  afterEach(() => rescue?.end());

  it('waits for no standby, follows no publisher, loads no missing library', async () => {
    rescue = await Rescue.begin({
      settings: {
        wal_level: 'logical',
        synchronous_standby_names: '"far away"',
        session_preload_libraries: 'auto_explain',
      },
      overrides: { synchronous_commit: 'local' },
    });
    const { connection, port } = rescue.source;
    await ask(connection, 'CREATE TABLE t (id int)');
    await ask(connection, 'CREATE PUBLICATION p FOR TABLE t');
    await ask(connection, `SELECT pg_create_logical_replication_slot('s', 'pgoutput')`);
    await ask(connection, 'CREATE DATABASE subscriber');
    const there = { ...connection, database: 'subscriber' };
    await ask(there, 'CREATE TABLE t (id int)');
    const conninfo = `host=127.0.0.1 port=${port} user=postgres dbname=postgres`;
    await ask(
      there,
      `CREATE SUBSCRIPTION s CONNECTION '${conninfo}' PUBLICATION p WITH (create_slot = false, copy_data = false)`,
    );
    const holder = `SELECT active_pid FROM pg_replication_slots WHERE slot_name = 's'`;
    await expect.poll(() => one(connection, holder), { timeout: 20_000 }).not.toBeNull();
    await rescue.takeSnapshot();
    await ask(connection, 'INSERT INTO t SELECT generate_series(1, 100)');
    await rescue.capture();
    const pid = await one(connection, holder);

    const restored = await rescue.restore('restored', rescue.latest());
    const address = addressOf(restored);
    await ask(address, 'INSERT INTO t VALUES (0)');
    expect(await one(address, 'SELECT count(*)::int FROM t')).toBe(101);
    expect(await one({ ...address, database: 'subscriber' }, 'SELECT subenabled FROM pg_subscription')).toBe(
      true,
    );
    // The live subscriber still holds its slot.
    expect(await one(connection, holder)).toBe(pid);
    expect(
      await ask(address, `SELECT 1 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%'`),
    ).toEqual([]);
  });

  it.each(['local', 'remote'])(
    'brings the configuration of a cluster that keeps it elsewhere, read %s',
    async (snapshot) => {
      rescue = await Rescue.begin({
        settings: { work_mem: '7MB', max_connections: '37' },
        prepare: async (dataDir, root) => {
          // As Debian has it.
          await mkdir(join(root, 'etc'), { mode: 0o755 });
          for (const name of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']) {
            await rename(join(dataDir, name), join(root, 'etc', name));
          }
          await writeFile(join(root, 'etc', 'postgresql.conf'), `data_directory = '${dataDir}'\n`, {
            flag: 'a',
          });
          await run('chmod', ['-R', 'a+rX', join(root, 'etc')]);
        },
        configAt: 'etc/postgresql.conf',
      });
      await ask(rescue.source.connection, `ALTER SYSTEM SET maintenance_work_mem = '9MB'`);
      await ask(rescue.source.connection, `ALTER SYSTEM SET archive_command = 'it''s a trap \\'`);
      await ask(rescue.source.connection, 'SELECT pg_reload_conf()');
      await ask(rescue.source.connection, 'CREATE TABLE t AS SELECT 1 AS a');
      await rescue.takeSnapshot({ snapshot });
      await ask(rescue.source.connection, 'INSERT INTO t VALUES (2)');
      await rescue.capture();
      const restored = await rescue.restore('restored', rescue.latest());
      const address = addressOf(restored);
      expect(await one(address, 'SELECT sum(a)::int FROM t')).toBe(3);
      expect(await one(address, 'SHOW data_directory')).toBe(restored.to);
      expect(await one(address, 'SHOW work_mem')).toBe('7MB');
      expect(await one(address, 'SHOW max_connections')).toBe('37');
      expect(await one(address, 'SHOW maintenance_work_mem')).toBe('9MB');
      // All three as they were, for whoever sets the new host up.
      const kept = join(restored.to, 'holdfast-restore', 'config');
      const theirs = await readFile(join(rescue.root, 'etc', 'postgresql.conf'), 'utf8');
      const found = await readdir(kept, { recursive: true, withFileTypes: true });
      const texts = await Promise.all(
        found
          .filter((entry) => entry.isFile())
          .map((entry) => readFile(join(entry.parentPath, entry.name), 'utf8')),
      );
      expect(texts).toContain(theirs);
      const original = await readFile(join(rescue.source.socketDir, 'pg_hba.conf'), 'utf8');
      expect(texts).toContain(original);
      expect(await readFile(join(restored.to, 'pg_hba.conf'), 'utf8')).toBe(original);
      expect(await one(address, 'SHOW hba_file')).toBe(join(restored.to, 'holdfast-restore', 'pg_hba.conf'));
    },
  );

  it('lists transactions that were prepared and left open', async () => {
    rescue = await Rescue.begin({ settings: { max_prepared_transactions: '3' } });
    await ask(rescue.source.connection, 'CREATE TABLE t (id int)');
    await rescue.takeSnapshot();
    await ask(rescue.source.connection, `BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s open'`);
    await ask(rescue.source.connection, 'INSERT INTO t VALUES (2)');
    await rescue.capture();
    const restored = await rescue.restore('restored', rescue.latest());
    expect(restored.warnings).toContainEqual(expect.stringContaining(`ROLLBACK PREPARED 'it''s open'`));
  });

  it('does not replay the creation of a tablespace into the source’s own folder', async () => {
    rescue = await Rescue.begin();
    const { connection } = rescue.source;
    await ask(connection, 'CREATE TABLE t (id int)');
    await rescue.takeSnapshot();
    await ask(connection, 'INSERT INTO t VALUES (1)');
    const before = await one<string>(connection, 'SELECT pg_current_wal_insert_lsn()');
    const space = join(rescue.root, 'space');
    await makeTablespaceFolder(space);
    await ask(connection, `CREATE TABLESPACE extra LOCATION '${space}'`);
    await ask(connection, 'CREATE TABLE far TABLESPACE extra AS SELECT 1 AS a');
    await rescue.capture();
    await expect(rescue.restore('restored', rescue.latest())).rejects.toMatchObject({
      code: 'recovery.tablespace-in-log',
      message: expect.stringContaining(space),
    });
    expect(await one(connection, 'SELECT a FROM far')).toBe(1);
    // Before it, all is well; and where the folder is another machine's, an empty one does.
    const restored = await rescue.restore('before', {
      ...rescue.latest(),
      before: positions.parse(before),
      lastCommit: null,
    });
    expect(await one(addressOf(restored), 'SELECT count(*)::int FROM t')).toBe(1);
    await rescue.source.stop('fast');
    await rename(space, `${space}-of-the-source`);
    await makeTablespaceFolder(space);
    const elsewhere = await rescue.restore('elsewhere', rescue.latest());
    expect(await one(addressOf(elsewhere), 'SELECT a FROM far')).toBe(1);
    expect(elsewhere.warnings).toContainEqual(expect.stringContaining(space));
  });
});

describe.each(postgresMajors.filter((major) => major !== 15))('PostgreSQL %i', (major) => {
  it('is restored to its latest moment and to one before', async (context) => {
    if (!(await requireComponent(`postgres-${major}`))) return context.skip();
    const rescue = await Rescue.begin({ major });
    try {
      await ask(rescue.source.connection, 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS a');
      await rescue.takeSnapshot();
      for (let i = 0; i < 5; i++) await ask(rescue.source.connection, 'INSERT INTO t SELECT a FROM t');
      await rescue.capture();
      const latest = await rescue.restore('latest', rescue.latest());
      expect(await one(addressOf(latest), 'SELECT count(*)::int FROM t')).toBe(32_000);
      const earlier = await rescue.restore('earlier', rescue.before(-2));
      expect(await one(addressOf(earlier), 'SELECT count(*)::int FROM t')).toBe(8000);
    } finally {
      await rescue.end();
    }
  });
});

/** The process that PostgreSQL noted in a data directory, if any. */
async function serversIn(dataDir: string): Promise<number[]> {
  try {
    return [Number((await readFile(join(dataDir, 'postmaster.pid'), 'utf8')).split('\n')[0])];
  } catch {
    return [];
  }
}
