import { expect, test } from 'vitest';
import type { JsonObject, LogPartHeader, RepositoryReader } from '../../repository/contract.ts';
import { partHistories } from './wal-feed.ts';

function header(name: string, lineage: string): LogPartHeader {
  return {
    name,
    digest: '',
    source: 'db',
    kind: 'postgres',
    writer: '',
    stream: '',
    sequence: 0,
    previous: null,
    replaces: null,
    lineage,
    ancestors: [],
    from: '0000000000000000',
    to: '0000000000000001',
    times: null,
    bytes: 1,
    storedBytes: 1,
    closed: 0,
    storedAt: 0,
  };
}

/** A reader of parts that hold nothing but facts. */
function readerOf(meta: Readonly<Record<string, JsonObject>>): RepositoryReader {
  const none = async (): Promise<never> => {
    throw new Error('only parts are opened');
  };
  return {
    openSnapshot: none,
    extract: none,
    readEntry: none,
    openPart: async (part) => ({
      header: part,
      meta: meta[part.name] ?? {},
      commits: [],
      marks: [],
      async *data() {
        yield new Uint8Array(1);
      },
    }),
  };
}

test('a history that a capture sealed with its first part is known at any later part of the timeline', async () => {
  const history = { '00000002.history': '1\t0/5000000\tno recovery target specified\n' };
  const recordEnd = '0000000000000001';
  const reader = readerOf({
    old: { recordEnd, histories: {} },
    first: { recordEnd, histories: history },
    middle: { recordEnd },
    last: { recordEnd },
  });
  const parts = [
    header('old', '7/1'),
    header('first', '7/2'),
    header('middle', '7/2'),
    header('last', '7/2'),
  ];
  const known = await partHistories(parts, reader, new AbortController().signal);
  expect(Object.assign({}, ...known.histories)).toEqual(history);
  expect(known.recordEnd).toBe(recordEnd);
});
