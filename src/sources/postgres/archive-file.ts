/**
 * Files as PostgreSQL archives them: what their names mean, and what a segment says about itself.
 *
 * Facts: access/xlog_internal.h (`XLogFileName`, `XLogLongPageHeaderData`), postmaster/pgarch.c.
 */
import { open } from 'node:fs/promises';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { parseSegmentName } from './position.ts';
import { majorOfMagic } from './wal-records.ts';

export type ArchiveFileKind = 'segment' | 'partial' | 'history' | 'backup';

/** What the name of an archived file says. */
export interface ArchiveName {
  readonly name: string;
  readonly kind: ArchiveFileKind;
  readonly timeline: number;
  /** Of all but a history: the name of the segment that it belongs to. */
  readonly segment: string | null;
}

const names: readonly [ArchiveFileKind, RegExp][] = [
  ['segment', /^([0-9A-F]{8})[0-9A-F]{16}$/],
  ['partial', /^([0-9A-F]{8})[0-9A-F]{16}\.partial$/],
  ['history', /^([0-9A-F]{8})\.history$/],
  ['backup', /^([0-9A-F]{8})[0-9A-F]{16}\.[0-9A-F]{8}\.backup$/],
];

/** Reads the name of an archived file (no folder). Undefined when PostgreSQL archives no such file. */
export function parseArchiveName(name: string): ArchiveName | undefined {
  for (const [kind, pattern] of names) {
    const match = pattern.exec(name);
    if (match === null) continue;
    const timeline = Number.parseInt(match[1]!, 16);
    if (timeline === 0) return undefined;
    return { name, kind, timeline, segment: kind === 'history' ? null : name.slice(0, 24) };
  }
  return undefined;
}

/** As `parseArchiveName`; throws `postgres.not-a-wal-file`. */
export function archiveName(name: string): ArchiveName {
  const parsed = parseArchiveName(name);
  if (parsed !== undefined) return parsed;
  throw new HoldfastError(
    'postgres.not-a-wal-file',
    `"${name}" is not the name of a file that PostgreSQL archives.`,
  );
}

/** What the first page of a segment says. */
export interface SegmentHeader {
  readonly major: number;
  readonly timeline: number;
  readonly lsn: bigint;
  /** Decimal. */
  readonly systemId: string;
  /** Bytes. */
  readonly segmentSize: number;
  /** Bytes at the beginning that end a record of the segment before. */
  readonly continued: number;
}

/** Bytes of the header of a segment's first page, and of every other page. */
export const longHeaderBytes = 40;
export const shortHeaderBytes = 24;

/**
 * Reads the first page header of a segment file and holds it against its name and size. `page` is at least 40
 * bytes. Throws `postgres.unsupported-version`, `postgres.wal-invalid`.
 */
export function readSegmentHeader(name: ArchiveName, page: Uint8Array, fileSize: number): SegmentHeader {
  const invalid = (why: string) =>
    new HoldfastError('postgres.wal-invalid', `${name.name} is not a valid WAL segment: ${why}.`, {
      details: { file: name.name },
    });
  if (page.length < longHeaderBytes) throw invalid(`it has only ${fileSize} bytes`);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const magic = view.getUint16(0, true);
  const major = majorOfMagic.get(magic);
  if (major === undefined) {
    if ((magic & 0xff00) !== 0xd100) throw invalid('it does not begin with the header of a page');
    throw new HoldfastError(
      'postgres.unsupported-version',
      `${name.name} was written by a PostgreSQL whose WAL has the magic number 0x${magic.toString(16)}; versions 13 to 18 are known.`,
    );
  }
  const header: SegmentHeader = {
    major,
    timeline: view.getUint32(4, true),
    lsn: view.getBigUint64(8, true),
    continued: view.getUint32(16, true),
    systemId: String(view.getBigUint64(24, true)),
    segmentSize: view.getUint32(32, true),
  };
  const { segmentSize } = header;
  const power = segmentSize >= 2 ** 20 && segmentSize <= 2 ** 30 && (segmentSize & (segmentSize - 1)) === 0;
  if ((view.getUint16(2, true) & 0x2) === 0 || !power || view.getUint32(36, true) !== 8192)
    throw invalid('its first page has no valid long header');
  if (fileSize !== segmentSize) throw invalid(`it has ${fileSize} bytes, and its header says ${segmentSize}`);
  const place = parseSegmentName(name.segment ?? '', segmentSize);
  if (place === undefined || place.lsn !== header.lsn)
    throw invalid('its header says that it belongs elsewhere in the log');
  // The first segment of a timeline begins with pages of the one before; none can be of a later one.
  if (header.timeline > name.timeline)
    throw invalid(`its header says that it is of timeline ${header.timeline}`);
  return header;
}

/** What `global/pg_control` says. */
export interface ControlFacts {
  /** Decimal. */
  readonly systemId: string;
  readonly segmentSize: number;
}

/** 1234567.0, by which servers check that they share a float format; the sizes follow it in every version. */
const floatMark = Buffer.from('0000000087d63241', 'hex');

/**
 * Reads the control file of a data directory; undefined where there is none. Throws `postgres.wal-invalid` for
 * one that is not of a supported server.
 */
export async function readControlFile(path: string): Promise<ControlFacts | undefined> {
  let bytes: Buffer;
  try {
    const file = await open(path, 'r');
    try {
      bytes = Buffer.alloc(512);
      await file.read(bytes, 0, bytes.length, 0);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  const at = bytes.indexOf(floatMark);
  const segmentSize = at < 0 ? 0 : bytes.readUInt32LE(at + 20);
  if (segmentSize < 2 ** 20 || segmentSize > 2 ** 30 || (segmentSize & (segmentSize - 1)) !== 0) {
    throw new HoldfastError('postgres.wal-invalid', `${path} is not the control file of a supported server.`);
  }
  return { systemId: String(bytes.readBigUInt64LE(0)), segmentSize };
}
