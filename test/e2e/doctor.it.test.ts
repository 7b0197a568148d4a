/** What doctor says of a repository that this user may read but not write. */
import { spawn } from 'node:child_process';
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Document, finished, holdfast, passphrase, run } from './scene.test-helper.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-doctor-'));
  await chmod(folder, 0o755);
  await writeFile(join(folder, 'passphrase.txt'), `${passphrase}\n`, { mode: 0o600 });
  await configure('sources:\n  app:\n    kind: postgres\n    url: postgres://nobody@127.0.0.1:1/none\n');
  expect((await run(['init'], { cwd: folder })).status).toBe(0);
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const configure = (sources: string) =>
  writeFile(
    join(folder, 'holdfast.yaml'),
    `repository: ./repository\nkey: { passphraseFile: passphrase.txt }\n${sources}`,
  );

/** As a user who may not write there: for root, whom no mode stops, as another one. */
async function doctor(): Promise<Document> {
  const state = await mkdtemp(join(tmpdir(), 'holdfast-doctor-state-'));
  await chmod(state, 0o777);
  try {
    const other = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
    const env = { PATH: process.env.PATH ?? '', HOME: state, HOLDFAST_STATE: state };
    const child = spawn(holdfast, ['doctor', '--json'], {
      cwd: folder,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...other,
    });
    return (await finished(child)).json();
  } finally {
    await rm(state, { recursive: true, force: true });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: as the document.
const found = (document: Document, name: string): any =>
  document.result.examinations[0].findings.find((finding: { name: string }) => finding.name === name);

test('a repository that can be read but not written is a problem, with the command that mends it', async () => {
  const repository = join(folder, 'repository');
  for (const path of ['', ...(await readdir(repository, { recursive: true }))]) {
    const whole = join(repository, path);
    await chmod(whole, (await stat(whole)).isDirectory() ? 0o555 : 0o444);
  }
  const problem = found(await doctor(), 'repository.writable');
  expect(problem).toMatchObject({ level: 'problem' });
  expect(problem.message).toMatch(/may not write/);
  expect(problem.remedy).toMatch(/chown -R \S+ '/);
  // On a host that only restores it is how it should be.
  await configure('');
  expect(found(await doctor(), 'repository.writable')).toMatchObject({ level: 'note' });
});
