/** A repository for age recipients only: the host that backs up never sees a secret that opens it. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import { ended } from '../oracle/world.ts';
import { queryAt, type RunOptions, run, Scene } from './scene.test-helper.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('age recipients', () => {
  let scene: Scene;
  let host: RunOptions;
  const identities: string[] = [];

  beforeAll(async () => {
    scene = await Scene.open();
    await scene.query('CREATE TABLE t AS SELECT generate_series(1, 1000) AS n');
    host = await scene.configure('host');
    await rm(join(host.cwd, 'passphrase.txt'));
    for (let i = 0; i < 3; i += 1) identities.push(await generateIdentity());
    const recipients = await Promise.all(identities.slice(0, 2).map(identityToRecipient));
    const file = join(host.cwd, 'holdfast.yaml');
    const text = await readFile(file, 'utf8');
    const key = `key: { recipients: [${recipients.join(', ')}] }`;
    await writeFile(file, text.replace(/^key: .*$/m, key));
  }, 60_000);

  afterAll(async () => {
    await scene?.close();
  });

  /** A folder as on another machine: the repository and one identity, nothing of the host. */
  async function machine(name: string, identity: string): Promise<RunOptions> {
    const cwd = join(scene.folder, name);
    await mkdir(cwd, { mode: 0o711 });
    await writeFile(join(cwd, 'identity.txt'), `# made for a test\n${identity}\n`, { mode: 0o600 });
    const repository = JSON.stringify(join(host.cwd, 'repository'));
    const text = `repository: ${repository}\nkey: { identityFile: identity.txt }\n`;
    await writeFile(join(cwd, 'holdfast.yaml'), text);
    return { cwd };
  }

  test('init, backup and list need no secret; restore is refused without one', async () => {
    for (const verb of ['init', 'backup', 'list']) {
      const told = await run([verb], host);
      expect([verb, told.status, told.stderr.includes('code:')]).toEqual([verb, 0, false]);
    }
    const refused = await run(['restore', '--to', 'back', '--json'], host);
    expect([refused.status, refused.json().error.code]).toEqual([2, 'config.no-key']);
  }, 60_000);

  test.each([0, 1])(
    'the identity of recipient %i alone restores on another machine',
    async (index) => {
      const options = await machine(`machine-${index}`, identities[index]!);
      const told = await run(['restore', '--to', 'back', '--start', '--json'], options);
      expect(told.stdout + told.stderr).not.toContain(identities[index]);
      expect(told.status).toBe(0);
      const { server } = told.json().result.restored;
      try {
        expect(await queryAt(server.connection, 'SELECT sum(n)::int AS sum FROM t')).toEqual([
          { sum: 500_500 },
        ]);
      } finally {
        await ended(server.pid, 'SIGQUIT');
      }
    },
    60_000,
  );

  test('the identity of somebody else opens nothing', async () => {
    const options = await machine('stranger', identities[2]!);
    const told = await run(['restore', '--to', 'back', '--json'], options);
    expect([told.status, told.json().error.code]).toEqual([4, 'repository.wrong-key']);
  });
});
