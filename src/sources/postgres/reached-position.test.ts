import { describe, expect, it } from 'vitest';
import { nextRecordStart, positionOf } from './position.ts';
import { checkReached } from './reached-position.ts';

const segmentSize = 2 ** 24;
const stop = (before: bigint | null, lastCommit: bigint | null, firstExcluded: bigint | null) => ({
  before: before === null ? null : positionOf(before),
  lineage: '1/1',
  lastCommit: lastCommit === null ? null : positionOf(lastCommit),
  firstExcluded: firstExcluded === null ? null : positionOf(firstExcluded),
});
const at = (lsn: bigint, end: bigint | null = null) => ({ lsn, end, segmentSize });

describe('the position reached', () => {
  it.each([
    ['between the commits', stop(0x2000n, 0x1000n, 0x2000n), at(0x1800n)],
    ['right before the first excluded', stop(0x2000n, 0x1000n, 0x2000n), at(0x2000n)],
    ['at the end of the record that the target lies in', stop(0x2001n, 0x1000n, 0x3000n), at(0x2040n)],
    ['at the end of the log', stop(null, 0x1000n, null), at(0x3000n, 0x3000n)],
    ['at a page’s end, which the log names behind the header', stop(null, null, null), at(0x4000n, 0x4018n)],
    ['where nothing is known of the end', stop(null, null, null), at(1n)],
  ])('fits %s', (_, plan, reached) => {
    expect(() => checkReached(plan, reached)).not.toThrow();
  });

  it.each([
    ['before the last commit', stop(0x2000n, 0x1000n, 0x2000n), at(0x0f00n)],
    ['at the start of the last commit', stop(null, 0x1000n, null), at(0x1000n)],
    ['behind the target', stop(0x2000n, 0x1000n, null), at(0x2008n)],
    ['behind the first excluded', stop(null, null, 0x2000n), at(0x2008n)],
    ['before the end of the log', stop(null, null, null), at(0x2ff8n, 0x3000n)],
  ])('does not fit %s', (_, plan, reached) => {
    expect(() => checkReached(plan, reached)).toThrowError(
      expect.objectContaining({ code: 'recovery.wrong-position' }),
    );
  });

  it('knows where records begin', () => {
    expect(nextRecordStart(0x1001n, segmentSize)).toBe(0x1008n);
    expect(nextRecordStart(0x2000n, segmentSize)).toBe(0x2018n);
    expect(nextRecordStart(0x1000000n, segmentSize)).toBe(0x1000028n);
  });
});
