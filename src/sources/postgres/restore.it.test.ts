/** Restores with real servers, a real repository, and real log, cut into parts at odd places. */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { postgresBinaries, requireComponent } from '../../../scripts/rig.ts';
import type { Commit, LogPartHeader, OpenedSnapshot, RepositoryReader } from '../../repository/contract.ts';
import { LocalState, Repository } from '../../repository/repository.ts';
import { openStore } from '../../storage/open.ts';
import { openSource } from '../open.ts';
import type { Restored, StopAt } from '../source.ts';
import { testContext } from './memory-repository.test-helper.ts';
import { lineageOf, lsnOf, parseLsn, positionOf, segmentName, segmentStart } from './position.ts';
import { restoreCluster } from './restore.ts';
import { connectScratch, type ScratchAddress } from './scratch-connection.ts';
import { initScratchCluster, launchServer, type ScratchServer, startServer } from './server.ts';
import { serverUser } from './server-user.ts';
import { WalScanner } from './wal-records.ts';

const there = await requireComponent('postgres-15');
const segmentSize = 2 ** 20;

async function ask<T>(address: ScratchAddress, sql: string): Promise<T[]> {
  const client = await connectScratch(address, { timeoutMs: 10_000 });
  try {
    return (await client.query(sql)).rows as T[];
  } finally {
    await client.end();
  }
}

async function one<T>(address: ScratchAddress, sql: string): Promise<T> {
  const [row] = await ask<Record<string, T>>(address, sql);
  return Object.values(row!)[0] as T;
}

const lsn = async (address: ScratchAddress, sql = 'SELECT pg_current_wal_flush_lsn()'): Promise<bigint> =>
  parseLsn(await one<string>(address, sql));

describe.skipIf(!there)('a restore of PostgreSQL', () => {
  let root: string;
  let binDir: string;
  let source: ScratchServer;
  let space: string;
  let repository: Repository;
  let reader: RepositoryReader;
  let snapshot: OpenedSnapshot;
  let systemId: string;
  let captured: bigint;
  let commits: Commit[] = [];
  let running: Restored[] = [];

  /** Appends what a server wrote on `timeline` from `from` on to the repository's log, in pieces of odd sizes. */
  async function capture(server: ScratchServer, timeline: number, from: bigint): Promise<bigint> {
    const histories: Record<string, string> = {};
    const wal = join(server.dataDir, 'pg_wal');
    for (const name of await readdir(wal)) {
      if (name.endsWith('.history')) histories[name] = await readFile(join(wal, name), 'utf8');
    }
    const to = await lsn(server.connection);
    const writer = await (await repository.writer()).openLog(
      { source: 'ledger', kind: 'postgres' },
      testContext(),
    );
    const scanner = new WalScanner(from, { segmentSize });
    const ancestors =
      timeline === 1 ? [] : [{ lineage: lineageOf(systemId, timeline - 1), position: positionOf(from) }];
    writer.startStream();
    let at = from;
    for (let piece = 700_001; at < to; piece = (piece * 7) % 1_000_003) {
      const bytes = await readWal(wal, timeline, at, Math.min(piece, Number(to - at)));
      scanner.push(bytes);
      const found = scanner.takeCommits();
      commits.push(...found);
      await writer.append(
        {
          lineage: lineageOf(systemId, timeline),
          ancestors,
          from: positionOf(at),
          to: positionOf(at + BigInt(bytes.length)),
          data: [bytes],
          commits: found,
          meta: { recordEnd: positionOf(scanner.complete), histories },
        },
        new AbortController().signal,
      );
      at += BigInt(bytes.length);
    }
    await writer.close();
    return at;
  }

  async function readWal(wal: string, timeline: number, at: bigint, length: number): Promise<Buffer> {
    const start = segmentStart(at, segmentSize);
    const offset = Number(at - start);
    const file = await open(join(wal, segmentName(timeline, at, segmentSize)), 'r');
    const room = Math.min(length, segmentSize - offset);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(room), 0, room, offset);
    await file.close();
    expect(bytesRead).toBe(room);
    return buffer;
  }

  async function parts(): Promise<LogPartHeader[]> {
    return repository.logParts('ledger', new AbortController().signal);
  }

  const latest = (timeline = 1): StopAt => ({
    before: null,
    lineage: lineageOf(systemId, timeline),
    lastCommit: positionOf(commits.at(-1)!.position),
    firstExcluded: null,
  });

  async function restore(
    name: string,
    stop: StopAt,
    options: {
      parts?: LogPartHeader[];
      start?: boolean;
      reader?: RepositoryReader;
      signal?: AbortSignal;
    } = {},
  ): Promise<Restored> {
    const restored = await restoreCluster({
      ...testContext(options.signal),
      reader: options.reader ?? reader,
      snapshot,
      parts: options.parts ?? (await parts()),
      stop,
      to: join(root, name),
      start: options.start ?? true,
      programs: [binDir],
    });
    if (restored.server !== null) running.push(restored);
    return restored;
  }

  function addressOf(restored: Restored): ScratchAddress {
    const url = new URL(restored.server!.connection.replace('@/', '@x/'));
    return {
      host: url.searchParams.get('host')!,
      port: Number(url.searchParams.get('port')),
      user: 'postgres',
      database: 'postgres',
    };
  }

  beforeAll(async () => {
    root = await mkdtemp('/tmp/holdfast-test-');
    await chmod(root, 0o755);
    binDir = (await postgresBinaries(15)).binDir;
    const dataDir = join(root, 'source');
    space = join(root, 'space');
    const user = await serverUser();
    await mkdir(space, { mode: 0o700 });
    await initScratchCluster({
      binDir,
      dataDir,
      args: ['--wal-segsize=1', '--data-checksums'],
      settings: {
        shared_buffers: '16MB',
        wal_keep_size: '2GB',
        max_wal_senders: '8',
        max_prepared_transactions: '7',
        autovacuum: 'off',
        shared_preload_libraries: 'auto_explain,pg_cron_that_is_not_here',
        archive_mode: 'on',
        archive_command: `touch ${join(root, 'archived')}`,
      },
    });
    // The library is missing for the source, too: only the file has it, as on a machine with more packages.
    source = await startServer({
      binDir,
      dataDir,
      settings: { shared_preload_libraries: 'auto_explain', synchronous_standby_names: '' },
      hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'],
    });
    const { connection } = source;
    if (user !== undefined) await promisify(execFile)('chown', [user.name, space]);
    await ask(connection, `CREATE TABLESPACE extra LOCATION '${space}'`);
    await ask(connection, 'CREATE TABLE t (id int PRIMARY KEY, note text)');
    await ask(connection, 'CREATE TABLE far (id int) TABLESPACE extra');
    await ask(connection, 'INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 1000) g');
    systemId = await one(connection, 'SELECT system_identifier::text FROM pg_control_system()');

    const context = testContext();
    const store = await openStore(join(root, 'repository'), { create: true });
    const { generateIdentity, identityToRecipient } = await import('age-encryption');
    const identity = await generateIdentity();
    const state = await LocalState.open(join(root, 'state'));
    const created = await Repository.create(
      store,
      state,
      { recipients: [await identityToRecipient(identity)], writerName: 'test' },
      context,
    );
    repository = created.repository;
    reader = await repository.reader({ identity }, context);
    const opened = openSource('ledger', 'postgres', {
      url: `postgresql://postgres@127.0.0.1:${source.port}/postgres`,
    });
    const writer = await repository.writer();
    const run = await writer.beginSnapshot({ source: 'ledger', kind: 'postgres' }, context);
    const facts = await opened.snapshot({ ...context, sink: run });
    const { header } = await run.publish(facts);
    snapshot = await reader.openSnapshot(header, context.signal);

    await ask(connection, 'INSERT INTO far SELECT generate_series(1, 5000)');
    for (let i = 1; i <= 5; i++) {
      await ask(
        connection,
        `INSERT INTO t SELECT ${i}000 + g, repeat(md5(g::text), 20) FROM generate_series(1, 900) g`,
      );
    }
    await ask(connection, 'DROP TABLE far');
    captured = await capture(source, 1, lsnOf(header.from));
  }, 120_000);

  afterEach(async () => {
    for (const { server } of running) process.kill(server!.pid, 'SIGQUIT');
    for (const { server } of running)
      await expect.poll(() => isAlive(server!.pid), { timeout: 20_000 }).toBe(false);
    running = [];
  });

  afterAll(async () => {
    await source?.stop('immediate');
    await rm(root, { recursive: true, force: true });
  });

  it('brings back the latest moment, without the source’s entanglements', async () => {
    const restored = await restore('latest', latest());
    const address = addressOf(restored);
    const sum = 'SELECT count(*)::int AS n, md5(string_agg(id || note, $$,$$ ORDER BY id)) AS m FROM t';
    expect(await ask(address, sum)).toEqual(await ask(source.connection, sum));
    expect(await one(address, `SELECT to_regclass('far')::text`)).toBeNull();
    expect(restored.server).toMatchObject({ lineage: lineageOf(systemId, 2) });
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
    const drop = commits.at(-1)!;
    const lastCommit = commits.at(-2)!;
    const stop = {
      before: positionOf(drop.position),
      lineage: lineageOf(systemId, 1),
      lastCommit: positionOf(lastCommit.position),
      firstExcluded: positionOf(drop.position),
    };
    const restored = await restore('before', stop);
    const address = addressOf(restored);
    expect(await one(address, 'SELECT count(*)::int FROM far')).toBe(5000);
    expect(await one(address, 'SELECT max(id) FROM t')).toBe(5900);
    // The tablespace is a copy beside the restored folder; the source's own is left alone.
    const places = await ask<{ place: string }>(
      address,
      `SELECT pg_tablespace_location(oid) AS place FROM pg_tablespace WHERE spcname = 'extra'`,
    );
    expect(dirname(places[0]!.place)).toBe(`${restored.to}.tablespaces`);

    const third = commits[3]!;
    const early = await restore('early', {
      before: positionOf(third.position),
      lineage: lineageOf(systemId, 1),
      lastCommit: positionOf(commits[2]!.position),
      firstExcluded: positionOf(third.position),
    });
    expect(await one(addressOf(early), 'SELECT max(id) FROM t')).toBe(2900);
  });

  it('brings back a bare snapshot', async () => {
    const stop = { before: null, lineage: lineageOf(systemId, 1), lastCommit: null, firstExcluded: null };
    const restored = await restore('bare', stop, { parts: [] });
    expect(await one(addressOf(restored), 'SELECT max(id) FROM t')).toBe(1000);
    expect(restored.server!.reached).toBe(snapshot.header.to);
  });

  it('leaves a folder that recovers by itself when it is started later', async () => {
    const restored = await restore('folder', latest(), { start: false });
    expect(restored.server).toBeNull();
    const [start, connect] = restored.next as [string, string];
    await promisify(execFile)('sh', ['-c', start]);
    const pid = Number((await readFile(join(restored.to, 'postmaster.pid'), 'utf8')).split('\n')[0]);
    try {
      const psql = `${connect} -Atc`;
      const { stdout } = await promisify(execFile)('sh', [
        '-c',
        `${psql} 'SELECT max(id), pg_is_in_recovery() FROM t'`,
      ]);
      expect(stdout.trim()).toBe('5900|f');
      const log = await readFile(join(restored.to, 'holdfast-restore', 'server.log'), 'utf8');
      expect(log).toContain('archive recovery complete');
      // Taking over is one script, and brings back what the source had.
      await promisify(execFile)('sh', [
        '-c',
        `${connect} -v ON_ERROR_STOP=1 -f ${restored.to}/holdfast-restore/release.sql`,
      ]);
      const auto = await readFile(join(restored.to, 'postgresql.auto.conf'), 'utf8');
      expect(auto.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual([]);
    } finally {
      process.kill(pid, 'SIGQUIT');
      await expect.poll(() => isAlive(pid), { timeout: 20_000 }).toBe(false);
    }
  });

  it('refuses a folder that is not empty, and touches nothing in it', async () => {
    await mkdir(join(root, 'full'));
    await writeFile(join(root, 'full', 'precious'), '');
    await expect(restore('full', latest())).rejects.toMatchObject({ code: 'recovery.target-not-empty' });
    expect(await readdir(join(root, 'full'))).toEqual(['precious']);
  });

  it('leaves a folder that cannot be started when it is interrupted', async () => {
    const abort = new AbortController();
    const interrupted: RepositoryReader = {
      ...bound(reader),
      openPart: async (header, signal) => {
        // Once the server is there: the headers were read before.
        if (signal !== abort.signal) abort.abort(new Error('interrupted'));
        return reader.openPart(header, signal);
      },
    };
    const failed = restore('torn', latest(), { reader: interrupted, signal: abort.signal });
    await expect(failed).rejects.toThrow('interrupted');
    const to = join(root, 'torn');
    expect(await readdir(to)).toContain('RESTORE-UNFINISHED.txt');
    expect(await readdir(join(to, 'global'))).not.toContain('pg_control');
    const server = await launchServer({ binDir, dataDir: to });
    expect((await server.exited).status).toBe(1);
    expect((await server.logTail()).join('\n')).toMatch(/syntax error|contains errors/);
    await server.stop();
    await expect(restore('torn', latest())).rejects.toMatchObject({
      code: 'recovery.target-not-empty',
      message: expect.stringContaining('unfinished restore'),
    });
  });

  it('says that log is missing, and never ends early instead', async () => {
    const all = await parts();
    const holed = all.filter((_, i) => i !== 2);
    await expect(restore('holed', latest(), { parts: holed })).rejects.toMatchObject({
      code: 'recovery.wal-missing',
    });
    await expect(restore('short', latest(), { parts: all.slice(0, 3) })).rejects.toMatchObject({
      code: 'recovery.wrong-position',
    });
    const server = await launchServer({ binDir, dataDir: join(root, 'short') });
    expect((await server.exited).status).toBe(1);
    await server.stop();
  });

  it('tells an unreachable repository from missing log', async () => {
    const { HoldfastError } = await import('../../core/errors.ts');
    const all = await parts();
    const failing: RepositoryReader = {
      ...bound(reader),
      openPart: (header, signal) =>
        header.name === all[3]!.name
          ? Promise.reject(new HoldfastError('storage.unreachable', 'The disk is gone.'))
          : reader.openPart(header, signal),
    };
    await expect(restore('gone', latest(), { reader: failing })).rejects.toMatchObject({
      code: 'storage.unreachable',
      message: expect.stringContaining('can be deleted'),
    });
  });

  it('says what to install for another version', async () => {
    const other = { ...bound(snapshot), meta: { ...snapshot.meta, version: 120_004 } } as OpenedSnapshot;
    const failed = restoreCluster({
      ...testContext(),
      reader,
      snapshot: other,
      parts: [],
      stop: latest(),
      to: join(root, 'other'),
      start: true,
    });
    await expect(failed).rejects.toMatchObject({
      code: 'recovery.no-server-binaries',
      next: expect.stringContaining('postgresql-12'),
    });
    await expect(stat(join(root, 'other'))).rejects.toThrow(/ENOENT/);
  });

  it('restores a second time, to a moment after the first restore', async () => {
    const first = await restore('first', {
      before: positionOf(commits.at(-1)!.position),
      lineage: lineageOf(systemId, 1),
      lastCommit: positionOf(commits.at(-2)!.position),
      firstExcluded: positionOf(commits.at(-1)!.position),
    });
    const address = addressOf(first);
    await ask(address, 'INSERT INTO far VALUES (77777)');
    await ask(address, 'INSERT INTO t SELECT 10000 + g FROM generate_series(1, 9000) g');
    const switched = lsnOf(first.server!.reached);
    const server = { dataDir: first.to, connection: address } as ScratchServer;
    const before = commits;
    commits = [];
    await capture(server, 2, switched);
    const mine = commits;
    commits = before;
    const stop: StopAt = {
      before: null,
      lineage: lineageOf(systemId, 2),
      lastCommit: positionOf(mine.at(-1)!.position),
      firstExcluded: null,
    };
    const all = await parts();
    const old = all.filter((part) => part.lineage === lineageOf(systemId, 1) && lsnOf(part.from) < switched);
    const fresh = all.filter((part) => part.lineage === lineageOf(systemId, 2));
    const second = await restore('second', stop, { parts: [...old, ...fresh] });
    expect(second.server!.lineage).toBe(lineageOf(systemId, 3));
    expect(await one(addressOf(second), 'SELECT max(id) FROM far')).toBe(77777);
    expect(await one(addressOf(second), 'SELECT max(id) FROM t')).toBe(19_000);

    // And to the old timeline's end, which the first restore left: its number is known, so the new one is 3.
    const withHistory = [...(await parts()).filter((part) => part.lineage === lineageOf(systemId, 1))];
    const third = await restore('third', latest(), { parts: withHistory });
    expect(await one(addressOf(third), `SELECT to_regclass('far')::text`)).toBeNull();
  });
});

/** An object whose methods may be called on a copy. */
function bound<T extends object>(object: T): T {
  const copy: Record<string, unknown> = {};
  for (let at = object; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) {
      if (name === 'constructor' || name in copy) continue;
      const value = Reflect.get(object, name);
      copy[name] = typeof value === 'function' ? value.bind(object) : value;
    }
  }
  return copy as T;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
