/**
 * Places in a PostgreSQL write-ahead log: LSNs as numbers, as people write them, as the repository's strings,
 * and as names of WAL segment files; and the history (lineage) that a place belongs to.
 *
 * Facts: access/xlog_internal.h (`XLogFileName`, `XLByteToSeg`), common/config.
 */
import { HoldfastError } from '../../core/errors.ts';

/** `0/16B3748`, as PostgreSQL prints a position. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffff_ffffn).toString(16).toUpperCase()}`;
}

const lsnText = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** Reads `0/16B3748`. Throws `command.usage` for anything else. */
export function parseLsn(text: string): bigint {
  const match = lsnText.exec(text.trim());
  if (match === null) {
    throw new HoldfastError('command.usage', `"${text}" is not a PostgreSQL log position (LSN).`, {
      next: 'Write it as PostgreSQL prints it, e.g. 0/16B3748 (`SELECT pg_current_wal_lsn()`).',
    });
  }
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** The repository's string of a position: 16 upper-case hexadecimal digits, which sort as the log does. */
export function positionOf(lsn: bigint): string {
  return lsn.toString(16).toUpperCase().padStart(16, '0');
}

const positionText = /^[0-9A-F]{16}$/;

/** The LSN of a repository's position. Throws `command.usage` when the string is none of PostgreSQL's. */
export function lsnOf(position: string): bigint {
  if (!positionText.test(position)) {
    throw new HoldfastError('command.usage', `"${position}" is not a position in a PostgreSQL log.`);
  }
  return BigInt(`0x${position}`);
}

/** What `SourceKind.positions` needs. */
export const positions = {
  format: (position: string): string => formatLsn(lsnOf(position)),
  parse: (text: string): string => positionOf(parseLsn(text)),
  // The smallest segment size has the most long page headers: one byte behind the beginning of the record, or at
  // most within it where that page has a short one.
  behind: (position: string): string => positionOf(nextRecordStart(lsnOf(position), 2 ** 20) + 1n),
};

const pageSize = 8192n;

/**
 * The place where the record after `lsn` begins: records start at multiples of eight and behind page headers.
 * Two ways of naming the end of one record become equal by this.
 */
export function nextRecordStart(lsn: bigint, segmentSize: number): bigint {
  const aligned = (lsn + 7n) & ~7n;
  const inPage = aligned % pageSize;
  const header = aligned % BigInt(segmentSize) < pageSize ? 40n : 24n;
  return inPage < header ? aligned - inPage + header : aligned;
}

/** The first position of the segment that holds `lsn`. Segment sizes are powers of two from 1 MiB to 1 GiB. */
export function segmentStart(lsn: bigint, segmentSize: number): bigint {
  return lsn - (lsn & BigInt(segmentSize - 1));
}

/** The file name of the segment that holds `lsn` on `timeline`: 24 hexadecimal digits. */
export function segmentName(timeline: number, lsn: bigint, segmentSize: number): string {
  const perLog = 0x1_0000_0000n / BigInt(segmentSize);
  const segment = lsn / BigInt(segmentSize);
  return hex8(BigInt(timeline)) + hex8(segment / perLog) + hex8(segment % perLog);
}

const segmentText = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$/;

/** Timeline and first position of a segment file; undefined when the name is none, or none of this size. */
export function parseSegmentName(
  name: string,
  segmentSize: number,
): { readonly timeline: number; readonly lsn: bigint } | undefined {
  const match = segmentText.exec(name);
  if (match === null) return undefined;
  const perLog = 0x1_0000_0000n / BigInt(segmentSize);
  const low = BigInt(`0x${match[3]}`);
  if (low >= perLog) return undefined;
  const segment = BigInt(`0x${match[2]}`) * perLog + low;
  return { timeline: Number.parseInt(match[1]!, 16), lsn: segment * BigInt(segmentSize) };
}

/** The names of all segments from the one holding `from` to the one holding the byte before `to`. */
export function segmentNames(timeline: number, from: bigint, to: bigint, segmentSize: number): string[] {
  const names: string[] = [];
  for (let at = segmentStart(from, segmentSize); at < to; at += BigInt(segmentSize)) {
    names.push(segmentName(timeline, at, segmentSize));
  }
  return names;
}

/** The file name of a timeline's history. */
export function historyName(timeline: number): string {
  return `${hex8(BigInt(timeline))}.history`;
}

/** `<system identifier>/<timeline>`: the history that a position belongs to. */
export function lineageOf(systemId: string, timeline: number): string {
  return `${systemId}/${timeline}`;
}

const lineageText = /^([0-9]{1,20})\/([1-9][0-9]{0,9})$/;

/** Reads a lineage. Throws `command.usage` when it is none of PostgreSQL's. */
export function parseLineage(lineage: string): { readonly systemId: string; readonly timeline: number } {
  const match = lineageText.exec(lineage);
  if (match === null) {
    throw new HoldfastError('command.usage', `"${lineage}" is not a history of a PostgreSQL server.`);
  }
  return { systemId: match[1]!, timeline: Number(match[2]) };
}

/**
 * The timelines that a history file names, oldest first: each was left at `lsn` by its successor.
 * Lines are `<timeline>\t<LSN>\t<reason>`; `#` starts a comment. Lines that are none are skipped as
 * PostgreSQL's own reader tolerates only blank lines and comments, and the file comes from the server.
 */
export function parseHistory(text: string): { readonly timeline: number; readonly lsn: bigint }[] {
  const result: { timeline: number; lsn: bigint }[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})/.exec(line);
    if (match !== null) result.push({ timeline: Number(match[1]), lsn: parseLsn(match[2]!) });
  }
  return result;
}

function hex8(value: bigint): string {
  return value.toString(16).toUpperCase().padStart(8, '0');
}
