/** Commands on a real server, and everything that can end them. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { component, postgresBinaries, requireComponent } from '../../../scripts/rig.ts';
import { parseConnection } from './connection.ts';
import { formatLsn } from './position.ts';
import { freePort, initScratchCluster, type ScratchServer, startServer } from './server.ts';
import { serverUser } from './server-user.ts';
import { type BaseBackupHandlers, PostgresConnection } from './wire.ts';

const run = promisify(execFile);
const there = await requireComponent('postgres-15');
const bouncer = await requireComponent('pgbouncer');
const never = new AbortController().signal;
const backup = { label: 'test', fast: true, manifest: true, tablespaceMap: true } as const;
const ignore: BaseBackupHandlers = {
  onStart: () => undefined,
  onArchive: () => undefined,
  onData: () => undefined,
};

describe.skipIf(!there)('a connection to a real server', () => {
  let folder: string;
  let server: ScratchServer;
  let dataDir: string;
  let binDir: string;

  beforeAll(async () => {
    folder = await mkdtemp('/tmp/holdfast-wire-');
    await chmod(folder, 0o755);
    ({ binDir } = await postgresBinaries(15));
    dataDir = join(folder, 'data');
    await initScratchCluster({ binDir, dataDir });
    server = await start();
    const connection = await connect();
    await connection.query(
      'CREATE TABLE filler AS SELECT g, repeat(md5(g::text), 20) AS t FROM generate_series(1, 60000) g',
    );
    await connection.close();
  });
  afterAll(async () => {
    await server?.stop('immediate');
    await rm(folder, { recursive: true, force: true });
  });

  const start = () => {
    const settings = { fsync: 'off', max_wal_senders: '6', wal_sender_timeout: '5s' };
    return startServer({ binDir, dataDir, settings, hba: ['host all,replication all 127.0.0.1/32 trust'] });
  };

  function connect(options: { replication?: boolean; signal?: AbortSignal } = {}) {
    return PostgresConnection.connect(parseConnection(server.url, { HOME: '/nowhere' }), options);
  }

  async function withConnection<T>(
    act: (connection: PostgresConnection) => Promise<T>,
    replication = false,
  ): Promise<T> {
    const connection = await connect({ replication });
    try {
      return await act(connection);
    } finally {
      await connection.close();
    }
  }

  it('reads results of every kind', () =>
    withConnection(async (connection) => {
      expect(await connection.rows("SELECT 1 AS a, NULL AS b, 'ü''' AS c, '' AS d")).toEqual([
        { a: '1', b: null, c: "ü'", d: '' },
      ]);
      const many = await connection.queryAll(
        'SELECT 1; CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (1), (2); ;',
      );
      expect(many.map(({ tag }) => tag)).toEqual(['SELECT 1', 'CREATE TABLE', 'INSERT 0 2']);
      expect(await connection.query('')).toEqual({ columns: [], rows: [], tag: '' });
      expect((await connection.query('SELECT x FROM t WHERE false')).columns).toEqual(['x']);
      const long = await connection.query("SELECT repeat('x', 3000000) FROM generate_series(1, 3)");
      expect(long.rows.map(([value]) => value?.length)).toEqual([3_000_000, 3_000_000, 3_000_000]);
      expect(connection.serverVersion).toBe(
        Number((await connection.rows('SHOW server_version_num'))[0]?.server_version_num),
      );
      expect(connection.parameters.get('client_encoding')).toBe('UTF8');
      await connection.query("SET application_name = 'renamed'");
      expect(connection.parameters.get('application_name')).toBe('renamed');
      expect(await connection.isPooled()).toBe(false);
    }));

  it('goes on after a refused statement', () =>
    withConnection(async (connection) => {
      await expect(connection.query('SELECT 1/0')).rejects.toMatchObject({
        code: 'postgres.statement-failed',
        details: { sqlState: '22012' },
      });
      await expect(connection.query('SELECT 1; SELEKT 2')).rejects.toMatchObject({
        details: { sqlState: '42601' },
      });
      await expect(
        connection.query("SET statement_timeout = '50ms'; SELECT pg_sleep(5)"),
      ).rejects.toMatchObject({
        code: 'postgres.statement-cancelled',
      });
      expect(await connection.rows('RESET statement_timeout; SELECT 1 AS one')).toEqual([{ one: '1' }]);
    }));

  it('lets commands wait for their turn', () =>
    withConnection(async (connection) => {
      const order: string[] = [];
      const ask = (sql: string) => connection.query(sql).then(({ rows }) => order.push(String(rows[0]?.[0])));
      await Promise.all([ask("SELECT 'a', pg_sleep(0.2)"), ask("SELECT 'b'"), ask("SELECT 'c'")]);
      expect(order).toEqual(['a', 'b', 'c']);
    }));

  it('cancels a statement on the server, in time or on request, and keeps the connection', () =>
    withConnection(async (connection) => {
      await expect(connection.query('SELECT pg_sleep(60)', { timeoutMs: 100 })).rejects.toMatchObject({
        code: 'net.timeout',
      });
      const abort = new AbortController();
      const slow = connection.query('SELECT pg_sleep(60)', { signal: abort.signal });
      const waiting = connection.query("SELECT 'mine'", {});
      const givenUp = connection.query("SELECT 'never'", { signal: AbortSignal.abort(new Error('early')) });
      await expect(givenUp).rejects.toThrow('early');
      setTimeout(() => abort.abort(new Error('enough')), 100);
      await expect(slow).rejects.toThrow('enough');
      expect((await waiting).rows).toEqual([['mine']]);
      const running =
        "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid() AND state = 'active'";
      expect(await connection.rows(running)).toEqual([{ n: '0' }]);
    }));

  it('refuses an answer that would fill the memory, and a copy that nobody asked for', async () => {
    await withConnection(async (connection) => {
      const flood = connection.query("SELECT repeat('x', 1000000) FROM generate_series(1, 200)");
      await expect(flood).rejects.toMatchObject({ code: 'postgres.protocol' });
      await expect(connection.query('SELECT 1')).rejects.toMatchObject({ code: 'postgres.protocol' });
      expect(connection.isStale).toBe(true);
    });
    await withConnection(async (connection) => {
      await expect(connection.query('COPY filler TO STDOUT')).rejects.toMatchObject({
        code: 'postgres.protocol',
      });
    });
  });

  it('ends with its signal, however long ago it connected', async () => {
    const abort = new AbortController();
    const connection = await connect({ signal: abort.signal });
    const slow = connection.query('SELECT pg_sleep(60)');
    abort.abort(new Error('over'));
    await expect(slow).rejects.toThrow('over');
    await expect(connection.query('SELECT 1')).rejects.toThrow('over');
    await connection.close();
  });

  it('tells when an administrator or a crash ended it', async () => {
    const victim = await connect();
    const pid = (await victim.rows('SELECT pg_backend_pid() AS pid'))[0]?.pid;
    const slow = expect(victim.query('SELECT pg_sleep(60)')).rejects.toMatchObject({
      code: 'postgres.not-ready',
      details: { sqlState: '57P01' },
    });
    await withConnection((other) => other.query(`SELECT pg_terminate_backend(${pid})`));
    await slow;
    await expect(victim.query('SELECT 1')).rejects.toMatchObject({ code: 'postgres.not-ready' });
    await victim.close();
    expect((await connect().then((c) => c.close().then(() => c))).isStale).toBe(true);
  });

  it('creates slots, and says what is wrong with them', () =>
    withConnection(async (connection) => {
      await connection.createPhysicalSlot('one', { temporary: false, reserveWal: true });
      const slot = { temporary: true, reserveWal: false };
      await expect(connection.createPhysicalSlot('one', slot)).rejects.toMatchObject({
        code: 'postgres.slot-exists',
      });
      await expect(connection.createPhysicalSlot('Bad"name', slot)).rejects.toMatchObject({
        code: 'command.usage',
      });
      await connection.createPhysicalSlot('two', slot);
      const list = await withConnection((plain) =>
        plain.rows(
          'SELECT slot_name, temporary, restart_lsn IS NOT NULL AS reserved FROM pg_replication_slots ORDER BY 1',
        ),
      );
      expect(list).toEqual([
        { slot_name: 'one', temporary: 'f', reserved: 't' },
        { slot_name: 'two', temporary: 't', reserved: 'f' },
      ]);
      const { xlogpos, timeline } = await connection.identifySystem();
      const stream = (slotName: string, start = xlogpos) =>
        connection.startReplication(
          { slot: slotName, timeline, start },
          { onWal: () => undefined, onKeepalive: () => undefined },
          never,
        ).ended;
      await expect(stream('three')).rejects.toMatchObject({ code: 'postgres.slot-missing' });
      await expect(stream('one', xlogpos + 0x100000000n)).rejects.toMatchObject({
        message: expect.stringContaining('ahead of the WAL flush position'),
      });
      expect(await connection.identifySystem()).toMatchObject({ timeline });
    }, true));

  describe('a base backup', () => {
    it('is what the server meant to send, byte for byte', () =>
      withConnection(async (connection) => {
        const space = join(folder, 'space');
        await mkdir(space);
        const owner = await serverUser();
        if (owner !== undefined) await chown(space, owner.uid, owner.gid);
        await withConnection(async (plain) => {
          await plain.query(`CREATE TABLESPACE extra LOCATION '${space}'`);
          await plain.query('CREATE TABLE elsewhere TABLESPACE extra AS SELECT * FROM filler LIMIT 500');
        });
        const seen: string[] = [];
        const { out, handlers } = await intoFiles(join(folder, 'out'), seen);
        const result = await connection.baseBackup({ ...backup, label: "it's ü" }, handlers, never);
        expect(result.timeline).toBe(1);
        expect(seen).toEqual([
          `start ${result.stopLsn > 0n}`,
          expect.stringMatching(/^\d+\.tar \/.*\/space$/),
          'base.tar null',
        ]);
        // pg_verifybackup compares every file with the manifest: size and CRC32C.
        const oid = seen[1]!.split('.')[0]!;
        await run(
          'sh',
          [
            '-c',
            `mkdir base && tar xf base.tar -C base && mkdir base/pg_tblspc/${oid} && tar xf ${oid}.tar -C base/pg_tblspc/${oid} && mv manifest base/backup_manifest`,
          ],
          { cwd: out },
        );
        const verified = await run(join(binDir, 'pg_verifybackup'), ['-n', join(out, 'base')]);
        expect(verified.stdout + verified.stderr).toContain('successfully verified');
        const label = await readFile(join(out, 'base/backup_label'), 'utf8');
        expect(label).toContain("LABEL: it's ü");
        expect(await readFile(join(out, 'base/tablespace_map'), 'utf8')).toBe(`${oid} ${space}\n`);
        expect(await connection.identifySystem()).toMatchObject({ timeline: 1 });
      }, true));

    it('waits for slow handlers, one call at a time, without piling up memory', () =>
      withConnection(async (connection) => {
        let busy = 0;
        let calls = 0;
        let bytes = 0;
        const onData = async (chunk: Uint8Array) => {
          expect(++busy).toBe(1);
          const first = chunk[0];
          if (++calls % 100 === 0) await pause(5);
          else await Promise.resolve();
          expect(chunk[0]).toBe(first);
          bytes += chunk.length;
          busy--;
        };
        const before = process.memoryUsage().arrayBuffers;
        await connection.baseBackup({ ...backup, manifest: false }, { ...ignore, onData }, never);
        expect(bytes).toBeGreaterThan(40_000_000);
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8_000_000);
      }, true));

    it('ends with the error of a handler', async () => {
      const failing = (where: string): Promise<void> | never => {
        if (where === 'onStart' || where === 'onManifest') throw new Error(`disk full in ${where}`);
        return Promise.reject(new Error(`disk full in ${where}`));
      };
      for (const where of ['onStart', 'onArchive', 'onData', 'onManifest'] as const) {
        await withConnection(async (connection) => {
          const broken = { ...ignore, [where]: () => failing(where) };
          await expect(connection.baseBackup(backup, broken, never)).rejects.toThrow(`disk full in ${where}`);
        }, true);
      }
    });

    it('ends when aborted in the middle, and the server notices', async () => {
      const connection = await connect({ replication: true });
      const abort = new AbortController();
      let bytes = 0;
      const onData = (chunk: Uint8Array) => {
        bytes += chunk.length;
        if (bytes > 5_000_000) abort.abort(new Error('enough'));
      };
      await expect(connection.baseBackup(backup, { ...ignore, onData }, abort.signal)).rejects.toThrow(
        'enough',
      );
      expect(bytes).toBeLessThan(20_000_000);
      await connection.close();
      await withConnection(async (plain) => {
        const senders = "SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'walsender'";
        await expect.poll(() => plain.rows(senders), { timeout: 10_000 }).toEqual([{ n: '0' }]);
      });
    });

    it('refuses options that the server would refuse', () =>
      withConnection(async (connection) => {
        const tooSlow = connection.baseBackup({ ...backup, maxRateKb: 1 }, ignore, never);
        await expect(tooSlow).rejects.toMatchObject({ code: 'command.usage' });
        const twoLines = connection.baseBackup({ ...backup, label: 'a\nb' }, ignore, never);
        await expect(twoLines).rejects.toMatchObject({ code: 'command.usage' });
        await withConnection((plain) =>
          expect(plain.baseBackup(backup, ignore, never)).rejects.toThrow(/not for replication/),
        );
      }, true));
  });

  describe('a replication stream', () => {
    it('brings the very bytes of the WAL, and reports positions', () =>
      withConnection(async (connection) => {
        const { xlogpos, timeline } = await connection.identifySystem();
        const start = xlogpos & ~0xffffffn;
        const parts: Buffer[] = [];
        let next = start;
        let alive = 0;
        let end = 0n;
        let sentAt = 0n;
        const stream = connection.startReplication(
          { slot: 'one', timeline, start },
          {
            onWal: (at, walEnd, micros, data) => {
              expect(at).toBe(next);
              next += BigInt(data.length);
              end = walEnd;
              sentAt = micros;
              parts.push(Buffer.from(data));
            },
            onKeepalive: () => {
              alive++;
            },
          },
          never,
        );
        const plain = await connect();
        await plain.query('CREATE TABLE streamed AS SELECT * FROM filler LIMIT 20000');
        const [row] = await plain.rows(
          'SELECT pg_current_wal_flush_lsn() AS lsn, pg_walfile_name(pg_current_wal_flush_lsn()) AS file',
        );
        await expect.poll(() => formatLsn(next) >= row!.lsn!, { timeout: 10_000 }).toBe(true);
        expect(end).toBeGreaterThanOrEqual(next);
        expect(Math.abs(Number(sentAt / 1000n) - Date.now())).toBeLessThan(60_000);
        stream.status({ write: next, flush: next, apply: next, replyNow: true });
        await expect.poll(() => alive, { timeout: 5_000 }).toBeGreaterThan(0);
        const state =
          "SELECT (SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'one') AS slot, flush_lsn AS flush FROM pg_stat_replication";
        await expect
          .poll(() => plain.rows(state))
          .toEqual([{ slot: formatLsn(next), flush: formatLsn(next) }]);
        await stream.stop();
        expect(await stream.ended).toBeUndefined();
        // The server's own files are the truth.
        const bytes = Buffer.concat(parts);
        for (let at = start; at < next; at += 0x1000000n) {
          const name = `00000001${(at >> 32n).toString(16).toUpperCase().padStart(8, '0')}${((at & 0xffffffffn) >> 24n).toString(16).toUpperCase().padStart(8, '0')}`;
          const file = await readFile(join(dataDir, 'pg_wal', name));
          const ours = bytes.subarray(Number(at - start), Number(at - start) + 0x1000000);
          expect(ours.equals(file.subarray(0, ours.length)), name).toBe(true);
        }
        expect(bytes.length).toBeGreaterThan(10_000_000);
        // The connection is good for more, the slot free for others, and stopping again harmless.
        await stream.stop();
        stream.status({ write: next, flush: next, apply: next });
        expect(await connection.identifySystem()).toMatchObject({ timeline });
        await plain.close();
      }, true));

    it('is refused while another one has the slot', () =>
      withConnection(async (connection) => {
        const { xlogpos, timeline } = await connection.identifySystem();
        const handlers = { onWal: () => undefined, onKeepalive: () => undefined };
        const first = connection.startReplication({ slot: 'one', timeline, start: xlogpos }, handlers, never);
        await withConnection((plain) =>
          expect
            .poll(() => plain.rows("SELECT active FROM pg_replication_slots WHERE slot_name = 'one'"))
            .toEqual([{ active: 't' }]),
        );
        await withConnection(async (other) => {
          const second = other.startReplication({ slot: 'one', timeline, start: xlogpos }, handlers, never);
          await expect(second.ended).rejects.toMatchObject({ code: 'postgres.slot-in-use', exit: 8 });
        }, true);
        await first.stop();
      }, true));

    it('ends with its signal and with the error of its handler', async () => {
      for (const [reason, fail] of [
        ['enough', false],
        ['disk full', true],
      ] as const) {
        await withConnection(async (connection) => {
          const { xlogpos, timeline } = await connection.identifySystem();
          const abort = new AbortController();
          const onWal = () => {
            if (fail) throw new Error(reason);
            abort.abort(new Error(reason));
          };
          const start = xlogpos & ~0xffffffn;
          const stream = connection.startReplication(
            { timeline, start },
            { onWal, onKeepalive: () => undefined },
            abort.signal,
          );
          await expect(stream.ended).rejects.toThrow(reason);
          await stream.stop();
        }, true);
      }
    });

    it('says when the WAL is gone', () =>
      withConnection(async (connection) => {
        const gone = connection.startReplication(
          { timeline: 1, start: 0x1000000n },
          { onWal: () => undefined, onKeepalive: () => undefined },
          never,
        );
        await withConnection(async (plain) => {
          await plain.query("SELECT pg_drop_replication_slot('one')");
          for (let i = 0; i < 3; i++) await plain.query('SELECT pg_switch_wal(); CHECKPOINT');
        });
        await gone.stop();
        const again = connection.startReplication(
          { timeline: 1, start: 0x1000000n },
          { onWal: () => undefined, onKeepalive: () => undefined },
          never,
        );
        await expect(again.ended).rejects.toMatchObject({ code: 'postgres.wal-removed' });
      }, true));
  });

  it.skipIf(!bouncer)('recognises a PgBouncer', async () => {
    const port = await freePort();
    const owner = await serverUser();
    const ini = join(folder, 'pgbouncer.ini');
    await writeFile(
      ini,
      `[databases]\n* = host=127.0.0.1 port=${server.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = ${port}\nunix_socket_dir =\nauth_type = any\nadmin_users = postgres\npool_mode = transaction\n`,
    );
    const { binDir: folderOfBouncer } = await component('pgbouncer');
    const child = spawn(join(folderOfBouncer, 'pgbouncer'), ['-q', ini], { ...owner, stdio: 'ignore' });
    try {
      const address = (database: string) =>
        parseConnection(
          { host: '127.0.0.1', port, user: 'postgres', dbname: database },
          { HOME: '/nowhere' },
        );
      const plain = await eventually(() => PostgresConnection.connect(address('postgres')));
      expect(await plain.isPooled()).toBe(true);
      await plain.close();
      for (const attempt of [
        () => PostgresConnection.connect(address('postgres'), { replication: true }),
        () => PostgresConnection.connect(address('pgbouncer')),
        () => PostgresConnection.connect({ ...address('postgres'), options: '-c work_mem=4MB' }),
      ]) {
        await expect(attempt()).rejects.toMatchObject({
          code: 'postgres.pooler',
          exit: 4,
          next: expect.stringContaining('direct address'),
        });
      }
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });

  // Last, because they end the server.
  it('follows a promotion to the next timeline', async () => {
    const standby = await standbyOf(server, folder, binDir);
    try {
      const connection = await PostgresConnection.connect(
        parseConnection(standby.url, { HOME: '/nowhere' }),
        { replication: true },
      );
      const { xlogpos, timeline } = await connection.identifySystem();
      const handlers = { onWal: () => undefined, onKeepalive: () => undefined };
      const stream = connection.startReplication({ timeline, start: xlogpos & ~0xffffffn }, handlers, never);
      await pause(300);
      const plain = await PostgresConnection.connect(parseConnection(standby.url, { HOME: '/nowhere' }));
      await plain.query('SELECT pg_promote()');
      const end = await stream.ended;
      expect(end).toMatchObject({ nextTimeline: 2 });
      expect((await connection.identifySystem()).timeline).toBe(2);
      const history = await connection.timelineHistory(2);
      expect(history.filename).toBe('00000002.history');
      expect(Buffer.from(history.content).toString()).toContain(`1\t${formatLsn(end!.switchLsn)}\t`);
      // Asked for what lies on the new timeline already: the server says so without any data.
      const past = connection.startReplication({ timeline: 1, start: end!.switchLsn }, handlers, never);
      expect(await past.ended).toEqual(end);
      await plain.close();
      await connection.close();
    } finally {
      await standby.stop('immediate');
    }
  });

  it('tells when the server is killed in the middle of a backup, of a stream and of a statement', async () => {
    const [backing, streaming, asking] = await Promise.all([
      connect({ replication: true }),
      connect({ replication: true }),
      connect(),
    ]);
    const { xlogpos, timeline } = await streaming.identifySystem();
    // Without a slot the checkpoint of the backup may remove what the stream is about to read.
    await streaming.createPhysicalSlot('killed', { temporary: true, reserveWal: true });
    const stream = streaming.startReplication(
      { slot: 'killed', timeline, start: xlogpos },
      { onWal: () => undefined, onKeepalive: () => undefined },
      never,
    );
    const begun = Promise.withResolvers<void>();
    const onData = async () => {
      begun.resolve();
      await pause(20);
    };
    const results = Promise.allSettled([
      backing.baseBackup(backup, { ...ignore, onData }, never),
      stream.ended,
      asking.query('SELECT pg_sleep(60)'),
    ]);
    await begun.promise;
    await server.stop('immediate');
    for (const result of await results) {
      expect(result.status).toBe('rejected');
      const { code } = (result as PromiseRejectedResult).reason;
      expect(['net.unreachable', 'postgres.not-ready']).toContain(code);
    }
    await Promise.all([backing.close(), streaming.close(), asking.close()]);
    await expect(connect()).rejects.toMatchObject({ code: 'net.unreachable' });
  });
});

/** Writes each archive and the manifest into a file. */
async function intoFiles(
  out: string,
  seen: string[],
): Promise<{ out: string; handlers: BaseBackupHandlers }> {
  await mkdir(out);
  const manifest = createWriteStream(join(out, 'manifest'));
  let file = manifest;
  const write = (stream: typeof file, chunk: Uint8Array) =>
    new Promise<void>((resolve, reject) =>
      stream.write(chunk, (error) => (error ? reject(error) : resolve())),
    );
  const handlers: BaseBackupHandlers = {
    onStart: ({ startLsn, tablespaces }) => {
      expect(tablespaces.map(({ location }) => location === null)).toEqual([false, true]);
      seen.push(`start ${startLsn > 0n}`);
    },
    onArchive: (_index, name, location) => {
      seen.push(`${name} ${location}`);
      file = createWriteStream(join(out, name));
    },
    onData: (chunk) => write(file, chunk),
    onManifest: (chunk) => write(manifest, chunk),
  };
  return { out, handlers };
}

/** A hot standby made by pg_basebackup, streaming from the server. */
async function standbyOf(primary: ScratchServer, folder: string, binDir: string): Promise<ScratchServer> {
  const dataDir = join(folder, 'standby');
  const { host, port, user } = primary.connection;
  const spaces = join(folder, 'standby-space');
  const owner = await serverUser();
  for (const path of [dataDir, spaces]) {
    await mkdir(path, { mode: 0o700 });
    if (owner !== undefined) await chown(path, owner.uid, owner.gid);
  }
  const from = ['-h', host, '-p', String(port), '-U', user];
  const to = ['-D', dataDir, '-T', `${join(folder, 'space')}=${spaces}`, '-R', '-c', 'fast'];
  await run(join(binDir, 'pg_basebackup'), [...from, ...to], { ...owner, cwd: '/' });
  const standby = await startServer({ binDir, dataDir, settings: { fsync: 'off' } });
  const connection = await PostgresConnection.connect(parseConnection(standby.url, { HOME: '/nowhere' }));
  await expect
    .poll(() => connection.rows('SELECT status FROM pg_stat_wal_receiver'), { timeout: 20_000 })
    .toEqual([{ status: 'streaming' }]);
  await connection.close();
  return standby;
}

async function eventually<T>(act: () => Promise<T>): Promise<T> {
  for (let left = 50; ; left--) {
    try {
      return await act();
    } catch (error) {
      if (left === 0) throw error;
      await pause(100);
    }
  }
}
