import { describe, expect, it } from 'vitest';
import { findCycles, type Import, importsOf, refusal } from './check-layers.ts';

const one = (from: string, statement: string): Import => {
  const [found] = importsOf(from, statement);
  return found ?? expect.fail(`no import was found in ${statement}`);
};
const why = (from: string, statement: string) => refusal(one(from, statement), ['zod', 'age-encryption']);

describe('importsOf', () => {
  it('finds every form', () => {
    const source = [
      "import 'a';",
      "import b from 'b';",
      "import {\n  c,\n  type C,\n} from './c.ts';",
      "import type { D } from './d.ts';",
      "import { type E } from './e.ts';",
      "export { f } from '../f/f.ts';",
      "  const g = await import('g');",
      "new Worker(new URL('./h.ts', import.meta.url));",
      "const text = 'import of nothing';",
    ].join('\n');
    expect(importsOf('x/y.ts', source).map(({ to, typeOnly, line }) => [to, typeOnly, line])).toEqual([
      ['a', false, 1],
      ['b', false, 2],
      ['x/c.ts', false, 3],
      ['x/d.ts', true, 7],
      ['x/e.ts', true, 8],
      ['f/f.ts', false, 9],
      ['g', false, 10],
      ['x/h.ts', false, 11],
    ]);
  });
});

describe('refusal', () => {
  it.each([
    ['core/a.ts', "import { x } from '../net/socket.ts';", 'core may import nothing, not net'],
    [
      'storage/local.ts',
      "import type { X } from '../repository/contract.ts';",
      'storage may import core, not repository',
    ],
    [
      'repository/a.ts',
      "import { x } from '../storage/local.ts';",
      'the doors of storage are store.ts, open.ts',
    ],
    ['operations/a.ts', "import { x } from '../sources/postgres/wire.ts';", 'the doors of sources'],
    [
      'cli/commands/a.ts',
      "import { x } from '../../repository/repository.ts';",
      'cli may import core, operations, service',
    ],
    [
      'cli/commands/a.ts',
      "import { x } from '../../operations/deep/a.ts';",
      'the files directly in operations/',
    ],
    ['sources/redis/a.ts', "import { x } from '../postgres/wire.ts';", 'siblings'],
    ['sources/source.ts', "import { x } from './postgres/source.ts';", 'only sources/open.ts'],
    ['storage/local.ts', "import { x } from './memory.ts';", 'two stores'],
    ['storage/resilient.ts', "import { x } from './local.ts';", 'only storage/open.ts'],
    ['core/a.ts', "import pg from 'pg';", 'pg is not among the dependencies'],
    ['core/a.ts', "import { x } from './a.fixtures.ts';", 'only tests'],
    ['core/a.ts', "import { x } from '../../scripts/rig.ts';", 'nothing outside src/'],
  ])('%s: %s', (from, statement, expected) => expect(why(from, statement)).toContain(expected));

  it.each([
    ['core/a.ts', "import { z } from 'zod';"],
    ['core/a.ts', "import { readFile } from 'node:fs/promises';"],
    ['core/errors/a.ts', "import type { X } from '../errors.ts';"],
    ['repository/a.ts', "import { x } from '../storage/store.ts';"],
    ['sources/open.ts', "import { x } from './postgres/source.ts';"],
    ['sources/postgres/a.ts', "import { x } from '../../net/socket.ts';"],
    ['storage/open.ts', "import { x } from './local.ts';"],
    ['storage/local-list.ts', "import { x } from './local-errors.ts';"],
    ['cli/commands/a.ts', "import { x } from '../../operations/backup.ts';"],
    ['repository/a.test.ts', "import { x } from '../storage/memory.ts';"],
  ])('%s: %s is allowed', (from, statement) => expect(why(from, statement)).toBeNull());
});

describe('findCycles', () => {
  it('finds a circle, and none where types close it', () => {
    const imports = [
      one('core/a.ts', "import { b } from './b.ts';"),
      one('core/b.ts', "import { c } from './c.ts';"),
    ];
    expect(findCycles([...imports, one('core/c.ts', "import { a } from './a.ts';")])).toEqual([
      ['core/a.ts', 'core/b.ts', 'core/c.ts', 'core/a.ts'],
    ]);
    expect(findCycles([...imports, one('core/c.ts', "import type { a } from './a.ts';")])).toEqual([]);
  });
});
