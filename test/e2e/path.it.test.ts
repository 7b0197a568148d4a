/** The whole path through `bin/holdfast` on a real server: init, backup, capture, list, restore, compare. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import {
  finished,
  passphrase,
  queryAt,
  type Ran,
  type RunOptions,
  run,
  Scene,
  says,
  start,
} from './scene.test-helper.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('from init to a compared restore', () => {
  let scene: Scene;
  let options: RunOptions;
  const rows: { id: number; at: string; lsn: string }[] = [];
  let captured: Ran;
  const running: number[] = [];

  beforeAll(async () => {
    scene = await Scene.open();
    options = await scene.configure('app');
  }, 60_000);

  afterAll(async () => {
    for (const pid of running) process.kill(pid, 'SIGQUIT');
    await scene.close();
  });

  test('init makes the repository and its key kit', async () => {
    const made = await run(['init', '--json'], options);
    expect(made.stderr).toBe('');
    expect(made.status).toBe(0);
    const { schema, command, result } = made.json();
    expect({ schema, command }).toEqual({ schema: 1, command: 'init' });
    const kit = await stat(result.keyKit);
    expect(kit.mode & 0o777).toBe(0o600);
    expect(result.keyKit).toBe(join(options.cwd, `holdfast-key-kit-${result.repository}.txt`));
  });

  test('capture runs beside a backup, and SIGTERM ends it well', async () => {
    await scene.query('CREATE TABLE entries (id int PRIMARY KEY, note text)');
    const capturing = start(['capture', '--progress', 'plain', '--json'], options);
    const ended = finished(capturing);
    await says(capturing, 'streaming');
    const taken = await run(['backup', '--json'], options);
    expect(taken.status).toBe(0);
    expect(taken.json().result).toMatchObject({ source: 'app', warnings: expect.any(Array), enrolled: null });
    for (let id = 1; id <= 20; id += 1) {
      await scene.query(`INSERT INTO entries VALUES (${id}, 'entry ${id}')`);
      const [facts] = await scene.query<{ at: Date; lsn: string }>(
        `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, pg_current_wal_insert_lsn() AS lsn`,
      );
      rows.push({ id, at: String(facts!.at), lsn: facts!.lsn });
    }
    await scene.query('DROP TABLE entries');
    await new Promise((wait) => setTimeout(wait, 2_500));
    capturing.kill('SIGTERM');
    captured = await ended;
    expect(captured.status).toBe(0);
    expect(captured.json().result).toMatchObject({
      source: 'app',
      durable: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/),
    });
  }, 60_000);

  test('list shows the snapshot and the window', async () => {
    const listed = await run(['list', '--json'], options);
    expect(listed.status).toBe(0);
    const [source] = listed.json().result.sources;
    expect(source.snapshots).toHaveLength(1);
    expect(source.windows).toHaveLength(1);
    expect(source.gaps).toEqual([]);
    expect(source.windows[0].from < rows[0]!.at && rows.at(-1)!.at < source.windows[0].to).toBe(true);
    const text = await run(['list'], options);
    expect(text.stdout).toContain('Recovery windows');
  });

  test('restore --at brings back exactly what was committed by then', async () => {
    const target = rows[11]!;
    const to = join(options.cwd, 'restored-at');
    const restored = await run(['restore', '--at', target.at, '--to', to, '--start', '--json'], options);
    expect(restored.stderr).toBe('');
    expect(restored.status).toBe(0);
    const { result } = restored.json();
    running.push(result.restored.server.pid);
    expect(result.plan.target).toEqual({ kind: 'time', time: target.at });
    const found = await queryAt<{ id: number }>(
      result.restored.server.connection,
      'SELECT id FROM entries ORDER BY id',
    );
    expect(found.map(({ id }) => id)).toEqual(rows.slice(0, 12).map(({ id }) => id));
  }, 60_000);

  test.each([
    ['template1', 'template1'],
    ['created-later', 'postgres'],
  ])(
    'of a source with the database %s a restored server is told with %s',
    async (own, told) => {
      const config = join(options.cwd, `${own}.yaml`);
      const text = await readFile(join(options.cwd, 'holdfast.yaml'), 'utf8');
      await writeFile(config, text.replace('/postgres?', `/${own}?`));
      const to = join(options.cwd, `restored-${own}`);
      const target = ['--snapshot', 'latest', '--to', to, '--start'];
      const restored = await run(['restore', ...target, '--config', config, '--json'], options);
      expect(restored.status).toBe(0);
      const { server, next } = restored.json().result.restored;
      running.push(server.pid);
      expect(new URL(server.connection.replace('@/', '@h/')).pathname).toBe(`/${told}`);
      expect(next[0]).toMatch(new RegExp(`-d ${told}$`));
    },
    60_000,
  );

  test('restore --lsn is exclusive', async () => {
    const to = join(options.cwd, 'restored-lsn');
    const restored = await run(
      ['restore', 'app', '--lsn', rows[4]!.lsn, '--to', to, '--start', '--json'],
      options,
    );
    expect(restored.status).toBe(0);
    const { server } = restored.json().result.restored;
    running.push(server.pid);
    const found = await queryAt<{ id: number }>(server.connection, 'SELECT id FROM entries ORDER BY id');
    expect(found.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5]);
  }, 60_000);

  test('the target is echoed in UTC and the plan shown; --dry-run writes nothing', async () => {
    const to = join(options.cwd, 'dry');
    const local = rows[3]!.at.replace('T', ' ').replace('Z', ' UTC');
    const planned = await run(['restore', '--at', local, '--to', to, '--dry-run'], options);
    expect(planned.status).toBe(0);
    expect(planned.stderr).toContain(`Target: ${rows[3]!.at} (UTC).`);
    expect(planned.stdout).toContain(`app to ${rows[3]!.at} (UTC)`);
    expect(planned.stdout).toContain('First left out');
    expect(await readdir(options.cwd)).not.toContain('dry');
  });

  test('the latest moment has no table any more, and a bare folder says how to start it', async () => {
    const restored = await run(['restore', '--to', join(options.cwd, 'latest'), '--json'], options);
    expect(restored.status).toBe(0);
    const { plan, restored: done } = restored.json().result;
    expect(plan.target).toEqual({ kind: 'latest' });
    expect(done.server).toBeNull();
    expect(done.next[0]).toContain('start');
  }, 60_000);

  test('outside the window: refused with the nearest moments, exit 4, nothing written', async () => {
    const late = await run(
      ['restore', '--at', '2100-01-01T00:00:00Z', '--to', join(options.cwd, 'no'), '--json'],
      options,
    );
    expect(late.status).toBe(4);
    const { error } = late.json();
    expect(error.code).toBe('recovery.outside-window');
    const near = await run(
      ['restore', '--at', error.details.before, '--to', join(options.cwd, 'no'), '--dry-run'],
      options,
    );
    expect(near.status).toBe(0);
    const early = await run(['restore', '--at', '2020-01-01T00:00:00Z', '--json'], options);
    expect(early.json().error.details.before).toBeNull();
    expect(await readdir(options.cwd)).not.toContain('no');
  });

  test('a folder that holds something is refused', async () => {
    const refused = await run(['restore', '--to', options.cwd, '--json'], options);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.target-not-empty']);
  });

  test('show, verify, doctor, key and config', async () => {
    const shown = await run(['show', 'latest', '--entries', '--json'], options);
    const paths = shown.json().result.entries.map((entry: { path: string }) => entry.path);
    expect(paths).toContain('global/pg_control');
    for (const depth of ['signatures', 'digests', 'content']) {
      const verified = await run(['verify', '--depth', depth, '--json'], options);
      expect([depth, verified.status, verified.json().result.undamaged]).toEqual([depth, 0, true]);
    }
    const keys = await run(['key', 'list', '--json'], options);
    expect(keys.json().result.keys).toMatchObject([{ type: 'passphrase' }]);
    const config = await run(['config'], options);
    expect(config.stdout).toContain('repository');
    expect(config.stdout).not.toContain(passphrase);
    const examined = await run(['doctor', '--json'], options);
    expect(examined.json().result).toMatchObject({ healthy: true });
    expect(examined.status).toBe(0);
  }, 60_000);
});
