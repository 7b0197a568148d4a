import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ErrorDefinition } from '../errors.ts';
import { errorRegistry } from './registry.ts';

const root = join(import.meta.dirname, '..', '..', '..');
const codes: [string, ErrorDefinition][] = Object.entries(errorRegistry);
const sources = globSync('src/**/*.ts', { cwd: root })
  .filter((path) => !path.includes('core/errors/') && !path.endsWith('.test.ts'))
  .map((path) => readFileSync(join(root, path), 'utf8'))
  .join('\n');

describe('the registry of errors', () => {
  it('explains every code in docs/errors.md, and no other', () => {
    const page = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');
    const headings = [...page.matchAll(/^### (.+)$/gm)].map((match) => match[1]);
    expect(headings.sort()).toEqual(codes.map(([code]) => code).sort());
    for (const [, { explanation, next }] of codes) {
      expect(page).toContain(explanation);
      expect(page).toContain(next);
    }
  });

  it('holds no code that nothing uses', () => {
    expect(codes.map(([code]) => code).filter((code) => !sources.includes(`'${code}'`))).toEqual([]);
  });

  it('knows every code that is thrown', () => {
    const thrown = [...sources.matchAll(/new HoldfastError\(\s*'([^']+)'/g)].map((match) => match[1] ?? '');
    expect(thrown.length).toBeGreaterThan(20);
    expect(thrown.filter((code) => !Object.hasOwn(errorRegistry, code))).toEqual([]);
  });

  it.each(codes)('%s is whole', (code, { exit, summary, explanation, next }) => {
    expect(code).toMatch(/^[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*$/);
    expect([1, 2, 3, 4, 5, 6, 7, 8, 130]).toContain(exit);
    for (const text of [summary, explanation]) expect(text).toMatch(/[.!?:`)]$/);
    expect(next.length).toBeGreaterThan(10);
    expect(summary.length).toBeLessThan(160);
  });

  it('keeps each area in the file of its name', () => {
    const files = globSync('*.ts', { cwd: import.meta.dirname }).filter(
      (file) => !/define|registry/.test(file),
    );
    for (const file of files) {
      const area = file.replace('.ts', '');
      const text = readFileSync(join(import.meta.dirname, file), 'utf8');
      const own = [...text.matchAll(/^ {2}'([a-z0-9.-]+)': \{/gm)].map((match) => match[1] ?? '');
      expect(own.length, file).toBeGreaterThan(0);
      expect(own.filter((code) => !code.startsWith(`${area}.`))).toEqual([]);
    }
  });
});
