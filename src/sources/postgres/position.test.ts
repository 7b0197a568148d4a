import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import {
  formatLsn,
  historyName,
  lineageOf,
  lsnOf,
  parseHistory,
  parseLineage,
  parseLsn,
  parseSegmentName,
  positionOf,
  positions,
  segmentName,
  segmentNames,
  segmentStart,
} from './position.ts';

const lsn = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
const segmentSize = fc.integer({ min: 20, max: 30 }).map((bits) => 2 ** bits);

describe('positions', () => {
  it('are written as PostgreSQL writes them', () => {
    expect(formatLsn(0x16b3748n)).toBe('0/16B3748');
    expect(formatLsn(0x1_0000_0000n)).toBe('1/0');
    expect(parseLsn('ab/cd')).toBe(0xab_0000_00cdn);
    expect(positions.parse('0/16B3748')).toBe('00000000016B3748');
    expect(positions.format('00000000016B3748')).toBe('0/16B3748');
  });

  it('come back from both forms, which sort as the log does', () => {
    fc.assert(
      fc.property(lsn, lsn, (a, b) => {
        expect(parseLsn(formatLsn(a))).toBe(a);
        expect(lsnOf(positionOf(a))).toBe(a);
        expect(positionOf(a) < positionOf(b)).toBe(a < b);
      }),
    );
  });

  it.each(['', '0', '0/', '/0', '0/123456789', '0x1/2', '0/1;drop', '-1/2'])('refuses %j', (text) => {
    expect(() => parseLsn(text)).toThrowError(expect.objectContaining({ code: 'command.usage' }));
  });

  it('refuses a position that is none', () => {
    try {
      lsnOf('0/16B3748');
      expect.unreachable();
    } catch (error) {
      expect(isHoldfastError(error, 'command.usage')).toBe(true);
    }
  });
});

describe('segments', () => {
  it('are named as pg_walfile_name names them', () => {
    const mib = 1024 * 1024;
    expect(segmentName(1, 0x16b3748n, 16 * mib)).toBe('000000010000000000000001');
    expect(segmentName(10, 0x1_ff00_0000n, 16 * mib)).toBe('0000000A00000001000000FF');
    expect(segmentName(1, 0x16b3748n, mib)).toBe('000000010000000000000016');
    expect(segmentName(1, 0x1_4000_0000n, 1024 * mib)).toBe('000000010000000100000001');
    expect(parseSegmentName('000000010000000100000004', 1024 * mib)).toBeUndefined();
    expect(parseSegmentName('00000002.history', 16 * mib)).toBeUndefined();
    expect(historyName(31)).toBe('0000001F.history');
  });

  it('lead back to their first position', () => {
    fc.assert(
      fc.property(lsn, segmentSize, fc.integer({ min: 1, max: 0x7fff_ffff }), (at, size, timeline) => {
        const start = segmentStart(at, size);
        expect(start <= at && at < start + BigInt(size)).toBe(true);
        expect(parseSegmentName(segmentName(timeline, at, size), size)).toEqual({ timeline, lsn: start });
      }),
    );
  });

  it('cover a stretch without the segment that starts at its end', () => {
    const size = 16 * 1024 * 1024;
    expect(segmentNames(1, 0x1000028n, 0x3000000n, size)).toEqual([
      '000000010000000000000001',
      '000000010000000000000002',
    ]);
    expect(segmentNames(1, 0x1000028n, 0x3000001n, size)).toHaveLength(3);
  });
});

describe('lineages', () => {
  it('carry system identifier and timeline', () => {
    expect(parseLineage(lineageOf('7301234567890123456', 3))).toEqual({
      systemId: '7301234567890123456',
      timeline: 3,
    });
    expect(() => parseLineage('x/1')).toThrow();
    expect(() => parseLineage('7301234567890123456/0')).toThrow();
  });

  it('read history files', () => {
    const text = '1\t0/3000148\tno recovery target specified\n\n# note\n2\t0/5000000\tbefore 2026-01-01\n';
    expect(parseHistory(text)).toEqual([
      { timeline: 1, lsn: 0x3000148n },
      { timeline: 2, lsn: 0x5000000n },
    ]);
    expect(parseHistory('')).toEqual([]);
  });
});
