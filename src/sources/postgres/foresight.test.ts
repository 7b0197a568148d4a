import { describe, expect, test } from 'vitest';
import { collationWarnings } from './foresight.ts';

const here = new Set(['C', 'C.utf8', 'en_US.utf8', 'de_DE.utf8']);

describe('collations', () => {
  test('that are the same here need no word', () => {
    const collations = { app: 'en_US.UTF-8 2.36', plain: 'C', other: 'C.UTF-8', old: 'de_DE.UTF-8' };
    expect(collationWarnings(collations, here, '2.36')).toEqual([]);
  });

  test('of another version ask for new indexes, once for all databases', () => {
    const [warning, ...more] = collationWarnings(
      { app: 'en_US.UTF-8 2.28', b: 'de_DE.UTF-8 2.28' },
      here,
      '2.36',
    );
    expect(more).toEqual([]);
    expect(warning).toMatch(/app, b was sorted by version 2\.28.*this machine has 2\.36.*REINDEX/);
  });

  test('that are not here are named', () => {
    const [warning] = collationWarnings({ app: 'tr_TR.UTF-8 2.36' }, here, '2.36');
    expect(warning).toMatch(/locale tr_TR\.UTF-8, which app needs, is not on this machine/);
  });

  test('are not judged where this machine does not tell its own', () => {
    expect(collationWarnings({ app: 'tr_TR.UTF-8 2.28' }, undefined, undefined)).toEqual([]);
  });
});
