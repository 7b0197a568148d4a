import { describe, expect, test } from 'vitest';
import type { Ancestor, LogPartHeader } from '../repository/contract.ts';
import { ancestorsOf, coverSegment } from './wal-cover.ts';

function part(lineage: string, from: string, to: string, ancestors: readonly Ancestor[] = []): LogPartHeader {
  return {
    name: `${lineage} ${from}-${to}`,
    digest: '',
    source: 'app',
    kind: 'postgres',
    writer: 'w',
    stream: '20261121T101530Z-aaaaaaaa',
    sequence: 0,
    previous: null,
    replaces: null,
    lineage,
    ancestors,
    from,
    to,
    times: null,
    bytes: 0,
    storedBytes: 0,
    closed: 0,
    storedAt: 0,
  };
}

const shown = (cover: ReturnType<typeof coverSegment>) => ({
  pieces: cover.pieces.map(({ part: { lineage }, from, to }) => `${lineage} ${from}-${to}`),
  holes: cover.holes.map(({ from, to }) => `${from}-${to}`),
  later: cover.later,
});

describe('the cover of a segment', () => {
  const left: Ancestor[] = [{ lineage: '7/1', position: '25' }];

  test('is whole where parts overlap or meet', () => {
    const parts = [part('7/1', '18', '24'), part('7/1', '22', '30'), part('7/1', '30', '35')];
    expect(shown(coverSegment('7/1', [], parts, '20', '30'))).toEqual({
      pieces: ['7/1 20-24', '7/1 22-30'],
      holes: [],
      later: true,
    });
  });

  test('names holes, and whether log follows', () => {
    const parts = [part('7/1', '21', '23'), part('7/1', '26', '28')];
    expect(shown(coverSegment('7/1', [], parts, '20', '30'))).toEqual({
      pieces: ['7/1 21-23', '7/1 26-28'],
      holes: ['20-21', '23-26', '28-30'],
      later: false,
    });
    expect(shown(coverSegment('7/1', [], parts, '00', '10'))).toEqual({
      pieces: [],
      holes: ['00-10'],
      later: true,
    });
  });

  test('of a new timeline begins with its parent, whose own later log does not count', () => {
    const parts = [part('7/1', '20', '40'), part('7/2', '25', '28', left)];
    expect(shown(coverSegment('7/2', left, parts, '20', '30'))).toEqual({
      pieces: ['7/1 20-25', '7/2 25-28'],
      holes: ['28-30'],
      later: false,
    });
  });

  test('knows no other cluster, no other timeline, and no files', () => {
    const parts = [part('8/1', '20', '30'), part('7/3', '20', '30'), part('7/1', '20', '20')];
    expect(shown(coverSegment('7/1', [], parts, '20', '30')).pieces).toEqual([]);
  });

  test('takes ancestors from the header that knows most', () => {
    const far: Ancestor[] = [...left, { lineage: '7/2', position: '29' }];
    expect(ancestorsOf('7/2', [part('7/2', '', '', []), part('7/3', '', '', far)])).toEqual(left);
    expect(ancestorsOf('7/9', [part('7/3', '', '', far)])).toBeUndefined();
  });
});
