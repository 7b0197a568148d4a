/**
 * `wal push` and `wal fetch` as PostgreSQL calls them, on a real server under load: killed, cut off from its
 * repository, with a backlog; then everything that was committed is compared after a restore from archived log alone.
 */
import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresBinaries, requireComponent } from '../../scripts/rig.ts';
import { initScratchCluster, type ScratchServer, startServer } from '../../src/sources/postgres/server.ts';
import { type ServerUser, serverUser } from '../../src/sources/postgres/server-user.ts';
import { holdfast } from './scene.test-helper.ts';

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const segmentBytes = 1024 * 1024;

describe.skipIf(!(await requireComponent('postgres-15')))(
  'archiving by wal push, recovery by wal fetch',
  () => {
    let folder: string;
    let user: ServerUser | undefined;
    let binDir: string;
    let server: ScratchServer;
    let client: pg.Client;
    const running: ScratchServer[] = [];

    beforeAll(async () => {
      user = await serverUser();
      folder = await mkdtemp(join(tmpdir(), 'holdfast-wal-'));
      await own(folder, 0o755);
      ({ binDir } = await postgresBinaries(15));
      const dataDir = join(folder, 'server');
      await initScratchCluster({
        binDir,
        dataDir,
        args: ['--wal-segsize=1'],
        settings: {
          archive_mode: 'on',
          archive_command: `${join(folder, 'archive.sh')} %p`,
          max_wal_size: '256MB',
          min_wal_size: '64MB',
          checkpoint_timeout: '30s',
        },
      });
      await configure('main', '');
      await script('archive.sh', [
        `if [ -e ${folder}/killing ]; then exec timeout -s KILL 0.$(awk 'BEGIN { srand(); print int(100 + rand() * 800) }') ${command('main')} wal push "$1"; fi`,
        `exec ${command('main')} wal push "$1" 2>>${folder}/push.log`,
      ]);
      server = await startServer({ binDir, dataDir });
      running.push(server);
      await configure('main', server.url);
      client = await connect(server.url);
      await client.query(
        'CREATE TABLE entries (id serial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), note text)',
      );
      expect(await run(['init'])).toMatchObject({ status: 0 });
      expect(await run(['backup'])).toMatchObject({ status: 0 });
    }, 120_000);

    afterAll(async () => {
      await client?.end();
      for (const one of running) await one.stop('immediate');
      await rm(folder, { recursive: true, force: true });
    });

    async function own(path: string, mode: number): Promise<void> {
      await chmod(path, mode);
      if (user !== undefined) await chown(path, user.uid, user.gid);
    }

    async function configure(name: string, url: string): Promise<void> {
      const home = join(folder, name);
      await mkdir(home, { recursive: true });
      await own(home, 0o755);
      await writeFile(join(home, 'passphrase'), 'correct horse battery staple\n', { mode: 0o600 });
      const lines = [
        'repository: ../repository',
        'state: state',
        'key: { passphraseFile: passphrase }',
        'sources:',
      ];
      lines.push(
        '  app:',
        '    kind: postgres',
        `    url: ${JSON.stringify(url || 'postgres://localhost/')}`,
        '',
      );
      await writeFile(join(home, 'holdfast.yaml'), lines.join('\n'));
      await own(join(home, 'passphrase'), 0o600);
      await own(join(home, 'holdfast.yaml'), 0o644);
    }

    /** As the server runs it: with next to nothing in its environment. */
    function command(name: string): string {
      const home = join(folder, name);
      const node = `HOLDFAST_NODE=${process.execPath} NODE_COMPILE_CACHE=${join(folder, 'compile')}`;
      return `env -i PATH=/usr/bin:/bin HOME=${home} ${node} ${holdfast} --config ${join(home, 'holdfast.yaml')}`;
    }

    async function script(name: string, lines: readonly string[]): Promise<void> {
      await writeFile(join(folder, name), `#!/bin/sh\n${lines.join('\n')}\n`);
      await own(join(folder, name), 0o755);
    }

    /** Runs `bin/holdfast` as the server's user. */
    async function run(args: readonly string[], cwd = join(folder, 'main'), name = 'main'): Promise<Ended> {
      const quoted = args.map((argument) => `'${argument}'`).join(' ');
      return await shell(`${command(name)} ${quoted}`, cwd);
    }

    async function shell(line: string, cwd: string): Promise<Ended> {
      const ids = user === undefined ? {} : { uid: user.uid, gid: user.gid };
      return await new Promise((done) => {
        execFile('/bin/sh', ['-c', line], { cwd, ...ids, timeout: 120_000 }, (error, stdout, stderr) => {
          const status = error === null ? 0 : typeof error.code === 'number' ? error.code : 255;
          done({ status, stdout, stderr });
        });
      });
    }

    async function push(path: string, cwd = server.dataDir, name = 'main'): Promise<Ended> {
      return await run(['wal', 'push', '--no-others', path], cwd, name);
    }

    async function connect(url: string): Promise<pg.Client> {
      const made = new pg.Client({ connectionString: url });
      made.on('error', () => undefined);
      await made.connect();
      return made;
    }

    async function write(megabytes: number): Promise<void> {
      for (let i = 0; i < megabytes * 4; i += 1) {
        await client.query(
          `INSERT INTO entries (note) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 8000)`,
        );
      }
    }

    async function facts(of: pg.Client): Promise<unknown> {
      const { rows } = await of.query(
        'SELECT count(*)::int AS entries, md5(string_agg(id || at::text || note, $1 ORDER BY id)) AS sum FROM entries',
        [','],
      );
      return rows[0];
    }

    /** Waits until everything written so far is archived. */
    async function archived(deadlineMs = 120_000): Promise<void> {
      const { rows } = await client.query('SELECT pg_walfile_name(pg_switch_wal()) AS name');
      const until = performance.now() + deadlineMs;
      for (;;) {
        const { rows: state } = await client.query('SELECT last_archived_wal AS last FROM pg_stat_archiver');
        if (state[0].last !== null && state[0].last >= rows[0].name) return;
        if (performance.now() > until) throw new Error(`not archived: ${rows[0].name}, ${state[0].last}`);
        await new Promise((wait) => setTimeout(wait, 100));
      }
    }

    async function ready(): Promise<string[]> {
      const names = await readdir(join(server.dataDir, 'pg_wal', 'archive_status'));
      return names.filter((name) => name.endsWith('.ready'));
    }

    async function anySegment(): Promise<string> {
      const names = await readdir(join(server.dataDir, 'pg_wal'));
      const done = await readdir(join(server.dataDir, 'pg_wal', 'archive_status'));
      return names
        .filter((name) => done.includes(`${name}.done`) && /^[0-9A-F]{24}$/.test(name))
        .sort()
        .at(-1)!;
    }

    test('segments are archived under load, and the same one again is done at once', async () => {
      await write(4);
      await archived();
      const segment = await anySegment();
      expect(await push(`pg_wal/${segment}`)).toEqual({ status: 0, stdout: '', stderr: '' });
    });

    test('another content under the same name is refused, and nothing is stored', async () => {
      const segment = await anySegment();
      const place = join(folder, 'other', 'pg_wal');
      await mkdir(place, { recursive: true });
      const content = await readFile(join(server.dataDir, 'pg_wal', segment));
      content[segmentBytes / 2]! ^= 1;
      await writeFile(join(place, segment), content);
      const before = await readdir(join(folder, 'repository', 'logs', 'app'));
      const refused = await push(join(place, segment));
      expect(refused.status).toBe(4);
      expect(refused.stderr).toContain('postgres.archive-conflict');
      expect(await readdir(join(folder, 'repository', 'logs', 'app'))).toEqual(before);
    });

    test('a wrong name, a cut file and the segment of another cluster are refused with statuses up to 125', async () => {
      const place = join(folder, 'other', 'pg_wal');
      const segment = await anySegment();
      const content = await readFile(join(server.dataDir, 'pg_wal', segment));
      const later = `${segment.slice(0, 16)}${(Number.parseInt(segment.slice(16), 16) + 64).toString(16).toUpperCase().padStart(8, '0')}`;
      const cases: [string, Buffer, string][] = [
        [later, content, 'postgres.wal-invalid'],
        [segment, content.subarray(0, 8192), 'postgres.archive-conflict'],
        [later, Buffer.alloc(segmentBytes), 'postgres.wal-invalid'],
      ];
      const foreign = Buffer.from(content);
      foreign.writeBigUInt64LE(1n, 24);
      foreign.writeBigUInt64LE(foreign.readBigUInt64LE(8) + 64n * BigInt(segmentBytes), 8);
      cases.push([later, foreign, 'postgres.other-cluster']);
      for (const [name, bytes, code] of cases) {
        await writeFile(join(place, name), bytes);
        const refused = await push(join(place, name));
        expect([code, refused.status > 0 && refused.status <= 125, refused.stderr]).toEqual([
          code,
          true,
          expect.stringContaining(code),
        ]);
      }
      expect((await push('pg_wal/nothing')).stderr).toContain('postgres.not-a-wal-file');
      expect((await push('pg_wal/0000000100000000000000FE')).stderr).toContain('postgres.wal-file-missing');
    });

    test('killed pushes and a repository out of reach lose nothing', async () => {
      await writeFile(join(folder, 'killing'), '');
      await write(6);
      await client.query('SELECT pg_switch_wal()');
      await new Promise((wait) => setTimeout(wait, 4_000));
      await rm(join(folder, 'killing'));
      await rename(join(folder, 'repository'), join(folder, 'away'));
      const failed = await push(`pg_wal/${(await ready())[0]?.slice(0, 24) ?? (await anySegment())}`);
      expect(failed.status).toBe(7);
      await write(50);
      expect((await ready()).length).toBeGreaterThanOrEqual(45);
      await rename(join(folder, 'away'), join(folder, 'repository'));
      await archived();
      expect(await readFile(join(folder, 'push.log'), 'utf8')).not.toContain('gap');
      // The backlog was stored by a few calls, and PostgreSQL's own calls were answered by marks.
      const marks = await readdir(join(server.dataDir, 'pg_wal', 'holdfast-archived'));
      expect(marks.length).toBeLessThan(10);
    }, 240_000);

    test('list shows one window, verify finds nothing, and a restore from archived log alone equals the server', async () => {
      await write(2);
      await archived();
      const listed = JSON.parse((await run(['list', '--json'])).stdout).result.sources[0];
      expect(listed.windows).toHaveLength(1);
      expect(listed.gaps).toEqual([]);
      const verified = await run(['verify', '--depth', 'content', '--json']);
      expect(JSON.parse(verified.stdout).result).toMatchObject({ undamaged: true });
      const to = join(folder, 'restored');
      const restored = await run(['restore', '--to', to, '--start', '--json']);
      expect(restored).toMatchObject({ status: 0, stderr: '' });
      const { connection, stop } = JSON.parse(restored.stdout).result.restored.server;
      const copy = await connect(connection);
      expect(await facts(copy)).toEqual(await facts(client));
      await copy.end();
      await shell(stop, folder);
    }, 120_000);

    test('a plain server recovers through wal fetch to a target, and its new timeline is archived too', async () => {
      await write(1);
      const { rows } = await client.query(
        'SELECT count(*)::int AS entries, pg_current_wal_insert_lsn()::text AS lsn FROM entries',
      );
      await write(2);
      await archived();
      const dataDir = join(folder, 'plain');
      await shell(`${binDir}/pg_basebackup -d '${server.url}' -D ${dataDir} -X none -c fast`, folder);
      // The copy begins later than the target; the point is recovery through the archive to its end.
      await write(2);
      await archived();
      const log = join(folder, 'fetch.log');
      await script('fetch.sh', [`exec ${command('main')} wal fetch "$1" "$2" 2>>${log}`]);
      const settings = `restore_command = '${join(folder, 'fetch.sh')} %f %p'\narchive_command = '${join(folder, 'archive.sh')} %p'\n`;
      await writeFile(join(dataDir, 'postgresql.auto.conf'), settings, { flag: 'a' });
      await writeFile(join(dataDir, 'recovery.signal'), '');
      await own(join(dataDir, 'recovery.signal'), 0o600);
      const plain = await startServer({ binDir, dataDir });
      running.push(plain);
      const copy = await connect(plain.url);
      await promoted(copy);
      expect(await facts(copy)).toEqual(await facts(client));
      expect(rows[0].entries).toBeGreaterThan(0);
      await copy.query(`INSERT INTO entries (note) VALUES ('on timeline 2')`);
      await copy.query('SELECT pg_switch_wal()');
      await until(async () => {
        const { rows: state } = await copy.query('SELECT last_archived_wal AS last FROM pg_stat_archiver');
        return /^00000002[0-9A-F]{16}$/.test(state[0].last ?? '');
      });
      const expected = await facts(copy);
      await copy.end();
      const history = await run(
        ['wal', 'fetch', '--no-ahead', '00000002.history', join(folder, 'history')],
        dataDir,
      );
      expect(history).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(await readFile(join(folder, 'history'), 'utf8')).toBe(
        await readFile(join(dataDir, 'pg_wal', '00000002.history'), 'utf8'),
      );
      const to = join(folder, 'second');
      const restored = await run(['restore', '--timeline', '2', '--to', to, '--start', '--json']);
      expect(restored).toMatchObject({ status: 0, stderr: '' });
      const { connection, stop } = JSON.parse(restored.stdout).result.restored.server;
      const second = await connect(connection);
      expect(await facts(second)).toEqual(expected);
      await second.end();
      await shell(stop, folder);
    }, 180_000);

    test('fetch: 0 with the very bytes, 1 only when absent, 126 for everything else', async () => {
      const segment = await anySegment();
      const to = join(folder, 'fetched');
      const fetched = await run(['wal', 'fetch', '--no-ahead', segment, to], server.dataDir);
      expect(fetched).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(
        Buffer.compare(await readFile(to), await readFile(join(server.dataDir, 'pg_wal', segment))),
      ).toBe(0);
      const absent = ['0000000100000FFF00000001', '00000063.history'];
      for (const name of absent)
        expect([name, (await run(['wal', 'fetch', name, to], server.dataDir)).status]).toEqual([name, 1]);
      expect((await run(['wal', 'fetch', segment, to], folder)).status).toBe(126);
      await rename(join(folder, 'repository'), join(folder, 'away'));
      expect((await run(['wal', 'fetch', absent[0]!, to], server.dataDir)).status).toBe(126);
      await rename(join(folder, 'away'), join(folder, 'repository'));
      const noNode = `env -i PATH=/usr/bin:/bin HOLDFAST_NODE=/nonexistent HOME=/nonexistent ${holdfast} --config /nonexistent wal fetch ${absent[0]} ${to}`;
      expect((await shell(noNode, server.dataDir)).status).toBe(126);
    }, 60_000);

    async function promoted(of: pg.Client): Promise<void> {
      await until(async () => {
        const { rows } = await of.query('SELECT pg_is_in_recovery() AS waiting');
        return rows[0].waiting === false;
      });
    }

    async function until(holds: () => Promise<boolean>): Promise<void> {
      const deadline = performance.now() + 60_000;
      while (!(await holds())) {
        if (performance.now() > deadline) throw new Error('waited for a minute');
        await new Promise((wait) => setTimeout(wait, 100));
      }
    }
  },
);
