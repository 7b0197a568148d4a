import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');

async function links(page: string): Promise<string[]> {
  const text = await readFile(join(root, page), 'utf8');
  const found = [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, target]) => target!);
  return found.map((target) => join(dirname(page), target).replace(/\/$/, ''));
}

test('the reading path lists every page, and no other', async () => {
  const listed = await links('docs/README.md');
  const all = await readdir(join(root, 'docs'), { recursive: true });
  const pages = all
    .filter((name) => name.endsWith('.md') && name !== 'README.md' && !/^changes\/\d/.test(name))
    .map((name) => join('docs', name));
  expect(listed.toSorted()).toEqual(pages.toSorted());
});

test('every link of the README and of a page leads to something', async () => {
  const all = await readdir(root, { withFileTypes: true });
  const docs = await readdir(join(root, 'docs'), { recursive: true });
  const there = new Set([...all.map(({ name }) => name), 'docs', ...docs.map((name) => join('docs', name))]);
  const pages = [
    'README.md',
    ...docs.filter((name) => name.endsWith('.md')).map((name) => join('docs', name)),
  ];
  for (const page of pages) {
    const dead = (await links(page)).filter(
      (target) => !there.has(target) && /^(docs\/|[^/]+$)/.test(target),
    );
    expect([page, dead]).toEqual([page, []]);
  }
});
