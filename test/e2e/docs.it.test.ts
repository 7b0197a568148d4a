/** The commands in the documentation work as written: blocks marked `sh runnable`, page by page, in their order. */
import { execFile } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import { holdfast, Scene } from './scene.test-helper.ts';

const root = resolve(import.meta.dirname, '../..');
const execute = promisify(execFile);

async function pages(): Promise<string[]> {
  const docs = (await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md'));
  return ['README.md', ...docs.sort().map((name) => `docs/${name}`)];
}

interface Block {
  readonly page: string;
  readonly line: number;
  readonly script: string;
}

async function blocks(): Promise<Block[]> {
  const found: Block[] = [];
  for (const page of await pages()) {
    const text = await readFile(join(root, page), 'utf8');
    for (const match of text.matchAll(/^```sh runnable\n(.*?)^```$/gms)) {
      found.push({ page, line: text.slice(0, match.index).split('\n').length, script: match[1]! });
    }
  }
  return found;
}

const all = await blocks();

test('the README shows commands that are run here', () => {
  expect(all.filter(({ page }) => page === 'README.md').length).toBeGreaterThan(2);
});

test('links between pages lead somewhere', async () => {
  for (const page of await pages()) {
    const text = await readFile(join(root, page), 'utf8');
    for (const [, target] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      await expect(readFileOrFolder(join(root, dirname(page), target!)), `${page} → ${target}`).resolves.toBe(
        true,
      );
    }
  }
});

async function readFileOrFolder(path: string): Promise<boolean> {
  return (await stat(path)) !== undefined;
}

describe.skipIf(!(await requireComponent('postgres-15')))('commands in the documentation', () => {
  let scene: Scene;
  const folders = new Map<string, string>();

  beforeAll(async () => {
    scene = await Scene.open();
    for (const page of new Set(all.map((block) => block.page))) {
      const { cwd } = await scene.configure(`page${folders.size}`);
      folders.set(page, cwd);
    }
  }, 60_000);

  afterAll(async () => {
    for (const cwd of folders.values()) await stopRestored(join(cwd, 'rescued'));
    await scene.close();
  });

  test.each(all)(
    '$page, line $line',
    async ({ page, script }) => {
      const cwd = folders.get(page)!;
      const env = {
        PATH: `${dirname(holdfast)}:${process.env.PATH}`,
        HOME: cwd,
        HOLDFAST_STATE: join(cwd, 'state'),
      };
      const ran = await execute('sh', ['-eu', '-c', script], { cwd, env });
      expect(ran.stdout).not.toBe('');
    },
    90_000,
  );
});

/** The server that a restored folder runs leaves its process id there. */
async function stopRestored(folder: string): Promise<void> {
  const text = await readFile(join(folder, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(text.split('\n')[0]);
  if (pid > 0) process.kill(pid, 'SIGQUIT');
}
