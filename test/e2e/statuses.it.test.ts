/** Every exit status, and that an error says what happened, what to do, and its code: as text and as JSON. */
import { cp, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import { finished, passphrase, type RunOptions, run, Scene, says, start } from './scene.test-helper.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('exit statuses', () => {
  let scene: Scene;
  let options: RunOptions;
  let zero: RunOptions;

  beforeAll(async () => {
    scene = await Scene.open();
    await scene.query('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n');
    options = await scene.configure('statuses');
    expect((await run(['init'], options)).status).toBe(0);
    expect((await run(['backup'], options)).status).toBe(0);
    const cwd = join(scene.folder, 'zero');
    await mkdir(cwd, { mode: 0o711 });
    const repository = join(cwd, 'repository');
    zero = {
      cwd,
      env: { DATABASE_URL: scene.server.url, BACKUP_DIR: repository, BACKUP_ENCRYPTION_KEY: passphrase },
    };
  }, 120_000);

  afterAll(async () => {
    await scene.close();
  });

  async function fails(args: readonly string[], where: RunOptions, status: number, code: string) {
    const told = await run(args, where);
    expect([told.status, told.stdout]).toEqual([status, '']);
    expect(told.stderr).toMatch(/^holdfast: .+/m);
    expect(told.stderr).toMatch(/^ {2}next: .+/m);
    expect(told.stderr).toContain(`  code: ${code}`);
    const machine = await run([...args, '--json'], where);
    const { schema, error } = machine.json();
    expect([machine.status, schema, error.code, error.exit]).toEqual([status, 1, code, status]);
    expect(error.next).not.toBe('');
    for (const secret of [passphrase, 'secret-of-mine']) {
      expect(told.stderr + machine.stdout + machine.stderr).not.toContain(secret);
    }
    return error;
  }

  test.each([
    [['bakup'], 'Did you mean backup?'],
    [['backup', '--jsno'], 'Did you mean --json?'],
    [['restore', '--at'], ''],
    [['restore', '--at', 'yesterday'], ''],
    [['restore', '--lsn', 'xyz'], ''],
    [['restore', '--at', '10m ago', '--snapshot', 'x'], ''],
    [['verify', '--depth', 'deep'], ''],
    [['show'], ''],
    [['backup', 'nothing-of-the-kind'], ''],
    // What an unset variable leaves in a script: never any snapshot, never the current folder.
    [['restore', '--snapshot', '', '--dry-run'], '--snapshot'],
    [['restore', '--to', ''], '--to'],
    [['show', ''], 'argument'],
  ] as const)('2: %j', async (args, hint) => {
    const told = await run(args, options);
    expect(told.status).toBe(2);
    expect(told.stderr).toContain(hint);
    expect(told.stderr).toMatch(/code: (command|config)\./);
    expect((await run([...args, '--json'], options)).json().error.exit).toBe(2);
  });

  test('2: a configuration with mistakes names line and column; none at all says how to write one', async () => {
    const bad = await scene.configure('bad', 'sorces: {}\n');
    const error = await fails(['list'], bad, 2, 'config.invalid');
    expect(error.message).toMatch(/holdfast\.yaml:\d+:\d+/);
    await fails(['list'], { cwd: scene.folder }, 2, 'config.none');
    const unsupported = { ...zero, env: { ...zero.env, REDIS_URL: 'redis://:secret-of-mine@h' } };
    await fails(['backup'], unsupported, 2, 'config.unsupported-variable');
  });

  test('3: no repository, no such snapshot, no such source', async () => {
    const fresh = await scene.configure('fresh');
    await mkdir(join(fresh.cwd, 'repository'));
    await fails(['list'], fresh, 3, 'repository.not-found');
    await fails(['restore', '--snapshot', '1999'], options, 3, 'recovery.unknown-snapshot');
    await fails(['restore', 'other'], options, 3, 'recovery.nothing-to-restore');
    await fails(['verify', 'other'], options, 3, 'recovery.nothing-to-restore');
    await fails(['restore', '--timeline', '9'], options, 3, 'recovery.unknown-timeline');
  });

  test('4: wrong passphrase, a repository that is there already, a time that only snapshots hold', async () => {
    await writeFile(join(options.cwd, 'wrong.txt'), 'not the passphrase\n', { mode: 0o600 });
    const text = await readFile(join(options.cwd, 'holdfast.yaml'), 'utf8');
    const wrong = join(options.cwd, 'wrong.yaml');
    await writeFile(wrong, text.replace('passphrase.txt', 'wrong.txt'));
    await fails(['restore', '--config', wrong, '--to', 'x'], options, 4, 'repository.wrong-key');
    await fails(['init'], options, 4, 'repository.exists');
    await fails(['restore', '--at', '1s ago'], options, 4, 'recovery.outside-window');
  }, 60_000);

  test('4: another repository in the place of the known one', async () => {
    const swapped = await scene.configure('swapped');
    expect((await run(['init'], swapped)).status).toBe(0);
    await rename(join(swapped.cwd, 'repository'), join(swapped.cwd, 'gone'));
    await cp(join(options.cwd, 'repository'), join(swapped.cwd, 'repository'), { recursive: true });
    await fails(['list'], swapped, 4, 'repository.not-the-pinned-one');
  }, 60_000);

  test('5: damage is found by verify and never restored', async () => {
    const damaged = await scene.configure('damaged');
    await run(['init'], damaged);
    expect((await run(['backup'], damaged)).status).toBe(0);
    const packs = join(damaged.cwd, 'repository', 'packs');
    const files = await readdir(packs, { recursive: true });
    const pack = files.find((name) => /[0-9a-f]{64}$/.test(name))!;
    await truncate(join(packs, pack), 1000);
    const verified = await run(['verify', '--json'], damaged);
    expect(verified.status).toBe(5);
    expect(verified.json().result.problems[0]).toMatchObject({ code: 'repository.damaged' });
    const refused = await run(['restore', '--to', 'back', '--json'], damaged);
    expect([refused.status, refused.json().error.code]).toEqual([5, 'repository.damaged']);
    await rm(join(packs, pack));
    const missing = await run(['restore', '--to', 'back-again', '--json'], damaged);
    expect([missing.status, missing.json().error.code]).toEqual([5, 'repository.damaged']);
  }, 90_000);

  test('a plan that goes around a damaged snapshot says so', async () => {
    const around = await scene.configure('around');
    await run(['init'], around);
    for (let i = 0; i < 2; i += 1) expect((await run(['backup'], around)).status).toBe(0);
    const whole = (await run(['restore', '--dry-run', '--json'], around)).json().result.plan;
    expect(whole.warnings).toEqual([]);
    const folder = join(around.cwd, 'repository', 'snapshots');
    const files = await readdir(folder, { recursive: true });
    await truncate(join(folder, files.find((name) => name.includes(whole.snapshot.id))!), 1000);
    const { plan } = (await run(['restore', '--dry-run', '--json'], around)).json().result;
    expect(plan.snapshot.id).not.toBe(whole.snapshot.id);
    expect(plan.warnings.join()).toContain(whole.snapshot.id);
  }, 90_000);

  test('the verb of a usage error is the verb, not the value of an option before it', async () => {
    const told = await run(['--config', 'holdfast.yaml', 'key', 'frob', '--json'], options);
    expect([told.status, told.json().command]).toEqual([2, 'key']);
  });

  test.skipIf(process.platform !== 'linux')('a report that cannot be written is told, in words', async () => {
    const full = await open('/dev/full', 'w');
    try {
      const child = start(['list'], options, ['ignore', full.fd, 'pipe']);
      const told = await finished(child);
      expect([told.status, told.stderr]).toEqual([1, expect.stringContaining('  code: system.disk-full')]);
    } finally {
      await full.close();
    }
  });

  test('7: the source and the store out of reach', async () => {
    const gone = await scene.configure('gone');
    const url = 'postgres://u:secret-of-mine@127.0.0.1:1/db';
    const config = join(gone.cwd, 'holdfast.yaml');
    await writeFile(config, (await readFile(config, 'utf8')).replace(JSON.stringify(scene.server.url), url));
    expect((await run(['init'], gone)).status).toBe(0);
    await fails(['backup'], gone, 7, 'net.unreachable');
    const examined = await run(['doctor', '--json'], gone);
    expect([examined.status, examined.json().result.healthy]).toEqual([1, false]);
    const unmounted = await scene.configure('unmounted');
    await fails(['list'], unmounted, 7, 'storage.unreachable');
  }, 60_000);

  test('8: a second capture of the same source', async () => {
    const first = start(['capture'], options);
    const ended = finished(first);
    await says(first, 'streaming');
    await fails(['capture'], options, 8, 'repository.busy');
    first.kill('SIGINT');
    expect((await ended).status).toBe(0);
  }, 60_000);

  test('130: Ctrl-C', async () => {
    const backup = start(['backup', '--json', '--progress', 'json'], options);
    const ended = finished(backup);
    await says(backup, '"event":"start"');
    backup.kill('SIGINT');
    const told = await ended;
    expect([told.status, told.json().error.code]).toEqual([130, 'system.interrupted']);
  }, 60_000);

  test('zero configuration: the first backup makes the repository, then restore works', async () => {
    const first = await run(['backup'], zero);
    expect(first.status).toBe(0);
    expect(first.stdout).toContain('This was the first backup');
    const kits = (await readdir(zero.cwd)).filter((name) => name.startsWith('holdfast-key-kit-'));
    expect(kits).toHaveLength(1);
    const second = await run(['backup', '--json'], zero);
    expect(second.json().result).toMatchObject({ created: null, enrolled: null });
    const restored = await run(['restore', '--to', 'back', '--json'], zero);
    expect(restored.status).toBe(0);
    // The disk is gone: that is no first use.
    await rename(join(zero.cwd, 'repository'), join(zero.cwd, 'unmounted'));
    const again = await run(['backup', '--json'], zero);
    expect(again.status).toBe(7);
  }, 120_000);

  test('a reader that has seen enough ends nothing badly', async () => {
    const child = start(['list'], options);
    child.stdout?.destroy();
    expect((await finished(child)).stderr).not.toContain('EPIPE');
  });
});
