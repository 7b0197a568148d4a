import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

interface Entry {
  readonly resolved?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

const root = join(import.meta.dirname, '..');
const read = (name: string): unknown => JSON.parse(readFileSync(join(root, name), 'utf8'));
const manifest = read('package.json') as Entry;
const { packages } = read('package-lock.json') as { packages: Readonly<Record<string, Entry>> };

describe('package-lock.json', () => {
  it('names no registry', () => {
    expect(Object.entries(packages).filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
  });

  it('asks for what package.json asks for', () => {
    expect(packages['']?.dependencies).toEqual(manifest.dependencies);
    expect(packages['']?.devDependencies).toEqual(manifest.devDependencies);
  });

  // `npm install` leaves out platform packages that it could not look up, and then `npm ci` refuses the lock.
  it('holds every optional package of every platform', () => {
    const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies).filter(
        (name) =>
          packages[`node_modules/${name}`] === undefined &&
          packages[`${path}/node_modules/${name}`] === undefined,
      ),
    );
    expect(missing).toEqual([]);
  });
});
