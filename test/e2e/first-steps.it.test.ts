/** What needs no server: before the first backup, and on a host that has no secret of the source. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Ran, run } from './scene.test-helper.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-first-'));
  await writeFile(
    join(folder, 'holdfast.yaml'),
    'repository: ./repository\nkey: { passphrase: correct horse battery staple }\nsources:\n  app:\n    kind: postgres\n    url: postgres://u:${APP_PASSWORD}@127.0.0.1:1/app\n',
  );
});
afterEach(() => rm(folder, { recursive: true }));

const ran = (...args: string[]): Promise<Ran> => run(args, { cwd: folder });

test('before the first backup doctor notes that there is no repository yet, and how it is made', async () => {
  const { result } = (await ran('doctor', '--json')).json();
  const [finding] = result.examinations[0].findings;
  expect(finding).toMatchObject({ name: 'repository.none-yet', level: 'note' });
  expect(finding.remedy).toContain('holdfast init');
});

test('what only reads the repository asks for no secret of a source; what opens the source does', async () => {
  const init = await ran('init');
  expect(init.stderr + init.status).toMatch(/0$/);
  expect((await ran('list', '--json')).status).toBe(0);
  expect((await ran('verify')).status).toBe(0);
  expect((await ran('restore', '--json')).json().error.code).toBe('recovery.nothing-to-restore');
  const place = 'holdfast.yaml:6:10: sources.app.url needs the environment variable APP_PASSWORD';
  for (const verb of [['backup'], ['capture', '--once'], ['mark', 'before-v2']]) {
    const refused = await ran(...verb, '--json');
    expect(refused.status).toBe(2);
    expect(refused.json().error).toMatchObject({
      code: 'config.invalid',
      message: expect.stringContaining(place),
    });
  }
  const doctor = await ran('doctor');
  expect(doctor.status).not.toBe(0);
  expect(doctor.stdout).toContain(place);
});
