/** In place: a running server is taken back, what was there is kept, and comes back by --undo. */
import { spawn } from 'node:child_process';
import { chown, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import { holdfast, queryAt, type RunOptions, run, Scene, says, start } from './scene.test-helper.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('restore in place', () => {
  let scene: Scene;
  let options: RunOptions;
  let dataDir: string;
  let named: string;

  beforeAll(async () => {
    scene = await Scene.open();
    options = await scene.configure('app');
    dataDir = join(scene.folder, 'server');
    await run(['init'], options);
    const far = join(scene.folder, 'far');
    await mkdir(far);
    const { user } = scene.server;
    if (user !== undefined) await chown(far, user.uid, user.gid);
    await scene.query(`CREATE TABLESPACE far LOCATION '${far}'`);
    await scene.query('CREATE TABLE entries (id int PRIMARY KEY)');
    await scene.query('CREATE TABLE distant (id int) TABLESPACE far');
    const capturing = start(['capture', '--progress', 'plain'], options);
    await says(capturing, 'streaming');
    expect((await run(['backup', '--json'], options)).status).toBe(0);
    await scene.query('INSERT INTO entries SELECT generate_series(1, 100)');
    const marked = await run(['mark', 'good', '--json'], options);
    named = marked.json().result.sources[0].position;
    expect(marked.json().result.sources[0].durable).toBe(true);
    await scene.query('INSERT INTO distant VALUES (1)');
    await scene.query('DELETE FROM entries WHERE id > 3');
    await scene.query('INSERT INTO entries VALUES (1000)');
    await scene.query(`ALTER SYSTEM SET work_mem = '7MB'`);
    await new Promise((wait) => setTimeout(wait, 2_000));
    capturing.kill('SIGTERM');
    await new Promise((done) => capturing.once('close', done));
    await scene.disconnect();
  }, 60_000);

  afterAll(async () => {
    const pid = await serverPid();
    if (pid !== undefined) process.kill(pid, 'SIGQUIT');
    await scene.close();
  });

  async function serverPid(): Promise<number | undefined> {
    const text = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '');
    return text === '' ? undefined : Number.parseInt(text, 10);
  }

  /** As it was started before. */
  async function startAgain(): Promise<void> {
    const [program, ...quoted] = (await readFile(join(dataDir, 'postmaster.opts'), 'utf8')).trim().split(' ');
    const args = quoted.map((arg) => arg.slice(1, -1));
    const child = spawn(program!, args, {
      ...scene.server.user,
      cwd: dataDir,
      stdio: 'ignore',
      detached: true,
    });
    child.unref();
    await expect.poll(() => ids().catch(() => undefined), { timeout: 20_000 }).toBeDefined();
  }

  const ids = async () =>
    (await queryAt<{ id: number }>(scene.server.url, 'SELECT id FROM entries ORDER BY id')).map(
      ({ id }) => id,
    );
  const hundred = Array.from({ length: 100 }, (_, index) => index + 1);

  test('without a terminal and without --force it is refused, and nothing is changed', async () => {
    const refused = await run(['restore', '--in-place', '--name', 'good', '--json'], options);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.not-confirmed']);
    const undo = await run(['restore', '--undo', '--force', '--json'], options);
    expect([undo.status, undo.json().error.code]).toEqual([3, 'recovery.nothing-to-undo']);
    expect(await ids()).toEqual([1, 2, 3, 1000]);
  }, 60_000);

  test('--dry-run shows the steps', async () => {
    const dry = await run(['restore', '--in-place', '--name', 'good', '--dry-run'], options);
    expect(dry.status).toBe(0);
    for (const text of [
      dataDir,
      'where the server runs',
      '1 stop',
      '3 exchange',
      '4 start',
      named.slice(0, 3),
    ])
      expect(dry.stdout).toContain(text);
    expect(await readdir(scene.folder)).not.toContain('server.holdfast');
  }, 60_000);

  test('the server goes back, with its own configuration, and what was there is kept', async () => {
    const inode = (await stat(dataDir)).ino;
    const restored = await run(['restore', '--in-place', '--name', 'good', '--force', '--json'], options);
    expect(restored.status, restored.stdout + restored.stderr).toBe(0);
    const { replaced } = restored.json().result;
    expect(await ids()).toEqual(hundred);
    expect((await stat(dataDir)).ino).toBe(inode);
    const [distant] = await queryAt<{ count: number; place: string }>(
      scene.server.url,
      `SELECT (SELECT count(*)::int FROM distant) AS count, pg_tablespace_location(oid) AS place
       FROM pg_tablespace WHERE spcname = 'far'`,
    );
    expect(distant).toEqual({ count: 0, place: join(scene.folder, 'far') });
    const [facts] = await queryAt<{ timeline: number; work_mem: string; archive: string }>(
      scene.server.url,
      `SELECT timeline_id AS timeline, current_setting('work_mem') AS work_mem, current_setting('hot_standby') AS archive
       FROM pg_control_checkpoint()`,
    );
    expect(facts).toEqual({ timeline: 2, work_mem: '7MB', archive: 'on' });
    expect(await readdir(dataDir)).not.toContain('holdfast-restore');
    expect(replaced.safety.startsWith(`${dataDir}.holdfast/`)).toBe(true);
    expect(await readdir(join(replaced.safety, 'global'))).toContain('pg_control');
    expect(replaced.server.lineage).toMatch(/\/2$/);
  }, 60_000);

  test('--undo brings back what was there; a second one the restored data', async () => {
    await queryAt(scene.server.url, 'INSERT INTO entries VALUES (2000)');
    const undone = await run(['restore', '--undo', '--force', '--json'], options);
    expect(undone.status, undone.stdout).toBe(0);
    expect(await ids()).toEqual([1, 2, 3, 1000]);
    expect(await queryAt(scene.server.url, 'SELECT id FROM distant')).toEqual([{ id: 1 }]);
    const redone = await run(['restore', '--undo', '--force'], options);
    expect(redone.status).toBe(0);
    expect(redone.stdout).toContain('The server runs');
    expect(await ids()).toEqual([...hundred, 2000]);
    expect((await run(['restore', '--undo', '--force'], options)).status).toBe(0);
    expect(await ids()).toEqual([1, 2, 3, 1000]);
  }, 90_000);

  test('an exchange that was interrupted must be undone before the next one', async () => {
    const restored = await run(['restore', '--in-place', '--name', 'good', '--force', '--json'], options);
    const { safety } = restored.json().result.replaced;
    const journal = join(safety, '..', 'journal.json');
    await writeFile(journal, (await readFile(journal, 'utf8')).replace('"done"', '"moving"'));
    const refused = await run(['restore', '--in-place', '--name', 'good', '--force', '--json'], options);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.place-unusable']);
    expect(refused.json().error.next).toContain('--undo');
    expect((await run(['restore', '--undo', '--force'], options)).status).toBe(0);
    expect(await ids()).toEqual([1, 2, 3, 1000]);
  }, 60_000);

  test('environment: production needs --force even where a person could be asked', async () => {
    const file = join(options.cwd, 'holdfast.yaml');
    const before = await readFile(file, 'utf8');
    await writeFile(file, `${before}environment: production\n`);
    const refused = await run(['restore', '--undo', '--json'], options);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.not-confirmed']);
    expect(refused.json().error.message).toContain('production');
    await writeFile(file, before);
  });

  test('another cluster in that place is refused', async () => {
    const other = await Scene.open();
    try {
      const file = join(options.cwd, 'holdfast.yaml');
      const before = await readFile(file, 'utf8');
      await writeFile(
        file,
        before.replace('kind: postgres', `kind: postgres\n    dataDirectory: ${other.server.dataDir}`),
      );
      const refused = await run(['restore', '--in-place', '--force', '--json'], options);
      expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.place-unusable']);
      expect(refused.json().error.message).toContain('system identifier');
      await writeFile(file, before);
    } finally {
      await other.close();
    }
  }, 60_000);

  test('killed at any moment, what was there is intact or comes back', async () => {
    for (const pause of [600, 2500, 4500, 5500, 6500]) {
      const child = spawn(holdfast, ['restore', '--in-place', '--name', 'good', '--force'], {
        cwd: options.cwd,
        env: { PATH: process.env.PATH ?? '', HOME: options.cwd, HOLDFAST_STATE: join(options.cwd, 'state') },
        stdio: 'ignore',
      });
      const ended = new Promise((done) => child.once('close', done));
      await new Promise((wait) => setTimeout(wait, pause));
      child.kill('SIGKILL');
      await ended;
      // Whatever was left: either a restart shows one of the two states whole, or undo brings the old one back.
      const area = `${dataDir}.holdfast`;
      const journals = await Promise.all(
        (await readdir(area)).map(async (id) =>
          JSON.parse(await readFile(join(area, id, 'journal.json'), 'utf8')),
        ),
      );
      const newest = journals.sort((a, b) => (a.id < b.id ? 1 : -1))[0];
      if (newest.kind === 'restore' && (newest.state === 'moving' || newest.state === 'done')) {
        expect((await run(['restore', '--undo', '--force', '--start'], options)).status).toBe(0);
      }
      if ((await serverPid()) === undefined) await startAgain();
      expect(await ids()).toEqual([1, 2, 3, 1000]);
    }
    const whole = await run(['restore', '--in-place', '--name', 'good', '--force', '--json'], options);
    expect(whole.status, whole.stdout).toBe(0);
    expect(await ids()).toEqual(hundred);
    const kept = whole.json().result.plan.inPlace.kept as string[];
    for (const folder of kept) await rm(folder, { recursive: true });
  }, 240_000);
});
