/** What is refused before anything happens, and what is still shown when something is missing. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import { type RunOptions, run, Scene } from './scene.test-helper.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('refusals', () => {
  let scene: Scene;
  let options: RunOptions;
  let repository: string;

  beforeAll(async () => {
    scene = await Scene.open();
    options = await scene.configure('refusals');
    repository = join(options.cwd, 'repository');
    expect((await run(['init'], options)).status).toBe(0);
    expect((await run(['backup'], options)).status).toBe(0);
  }, 120_000);

  afterAll(async () => {
    await scene.close();
  });

  test('a dry run refuses the target that the real run would', async () => {
    const full = join(options.cwd, 'full');
    await mkdir(full);
    await writeFile(join(full, 'precious'), '');
    for (const [to, code] of [
      [full, 'recovery.target-not-empty'],
      [join(full, 'precious'), 'recovery.target-unusable'],
    ]) {
      const dry = await run(['restore', '--to', to!, '--dry-run', '--json'], options);
      const real = await run(['restore', '--to', to!, '--json'], options);
      expect(dry.json().error).toMatchObject({ code });
      expect([dry.status, dry.json().error]).toEqual([real.status, real.json().error]);
    }
    expect(await readdir(full)).toEqual(['precious']);
  }, 60_000);

  test('an unknown --timezone is refused by every verb', async () => {
    for (const verb of ['list', 'doctor', 'verify']) {
      const told = await run([verb, '--timezone', 'Mars/Base', '--json'], options);
      expect([told.status, told.json().error.code]).toEqual([2, 'command.usage']);
    }
    expect((await run(['list', '--timezone', 'Europe/Berlin'], options)).status).toBe(0);
  }, 60_000);

  test('a limit of a setting is said in plain words', async () => {
    const limited = await scene.configure('limited', '    port: 70000\n');
    const { error } = (await run(['list', '--json'], limited)).json();
    expect(error.message).toContain('sources.app.port must be at most 65535');
  });

  test('a wrong key hides of a snapshot only what it would have opened', async () => {
    await writeFile(join(options.cwd, 'wrong.txt'), 'not the passphrase\n', { mode: 0o600 });
    const text = await readFile(join(options.cwd, 'holdfast.yaml'), 'utf8');
    const wrong = join(options.cwd, 'wrong.yaml');
    await writeFile(wrong, text.replace('passphrase.txt', 'wrong.txt'));
    const shown = await run(['show', 'latest', '--config', wrong], options);
    expect(shown.status).toBe(0);
    expect(shown.stdout).toMatch(/Consistent at/);
    expect(shown.stdout).toMatch(/Locked +What only the key shows is left out/);
    const entries = await run(['show', 'latest', '--entries', '--config', wrong, '--json'], options);
    expect([entries.status, entries.json().error.code]).toEqual([4, 'repository.wrong-key']);
  }, 60_000);

  test('keys that are gone are found by verify, and said when they are needed', async () => {
    const [keys, aside] = [join(repository, 'keys'), join(options.cwd, 'keys')];
    await rename(keys, aside);
    const verified = await run(['verify'], options);
    expect(verified.status).toBe(5);
    expect(verified.stdout).toMatch(/no wrapped data key/);
    expect(verified.stdout).toMatch(/no wrapped admin key/);
    const refused = await run(['restore', '--to', 'x', '--json'], options);
    expect(refused.json().error.message).toContain('keys/ of the repository is empty');
    expect(refused.json().error.next).toContain('key kit');
    // As the kit prints them they open it again.
    const kit = (await readdir(options.cwd)).find((name) => name.startsWith('holdfast-key-kit-'))!;
    const printed = await readFile(join(options.cwd, kit), 'utf8');
    await mkdir(keys);
    for (const [, name, armored] of printed.matchAll(
      /^(keys\/\S+\.age) [^\n]*\n\n(-----BEGIN[\s\S]*?-----END[^\n]*)/gm,
    ))
      await writeFile(join(repository, name!), armored!);
    expect((await run(['verify', '--depth', 'content'], options)).status).toBe(0);
    await rm(keys, { recursive: true });
    await rename(aside, keys);
  }, 60_000);

  test('damage is told by show and doctor, too', async () => {
    const folder = join(repository, 'snapshots', 'app');
    const [name = ''] = await readdir(folder);
    const whole = await readFile(join(folder, name));
    expect((await run(['backup'], options)).status).toBe(0);
    await writeFile(join(folder, name), whole.subarray(0, 100));
    const shown = await run(['show', 'latest', '--json'], options);
    expect(shown.json().result.problems).not.toEqual([]);
    const examined = (await run(['doctor', '--json'], options)).json().result;
    const findings = examined.examinations.flatMap((one: { findings: unknown[] }) => one.findings);
    expect(findings).toContainEqual(expect.objectContaining({ name: 'source.damage', level: 'problem' }));
  }, 60_000);
});
