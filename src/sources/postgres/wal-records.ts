/**
 * Finds commits in a stream of PostgreSQL WAL without copying it: an incremental scanner that walks page
 * headers and record lengths, and looks inside only the few records that matter.
 *
 * It reads what an attacker or a broken disk may have written, so every step is bounded and checked: page
 * magic and address, continuation lengths, record lengths, the link to the record before. Checksums of
 * records are left to PostgreSQL; the bytes themselves are authenticated by the repository.
 *
 * Facts: access/xlogrecord.h, access/xlog_internal.h, access/xact.h of PostgreSQL 13 to 18, whose layouts
 * agree in all that is used here but the size of one item (`droppedStatsSize`).
 */
import { HoldfastError } from '../../core/errors.ts';
import type { Commit } from '../../repository/contract.ts';
import { formatLsn } from './position.ts';

/** Bytes in a WAL page. Servers built with another block size are refused by the page check. */
export const walPageSize = 8192;

const shortHeader = 24;
const longHeader = 40;
const recordHeader = 24;

const firstIsContrecord = 0x1;
const longHeaderFlag = 0x2;
const firstIsOverwriteContrecord = 0x8;

/** XLOG_PAGE_MAGIC of each major version. */
export const majorOfMagic: ReadonlyMap<number, number> = new Map([
  [0xd106, 13],
  [0xd10d, 14],
  [0xd110, 15],
  [0xd113, 16],
  [0xd116, 17],
  [0xd118, 18],
]);

const rmXlog = 0;
const rmXact = 1;
const rmTablespace = 5;
const infoTablespaceCreate = 0x00;
const infoSwitch = 0x40;
const infoRestorePoint = 0x70;
const xactOpMask = 0x70;
const xactCommit = 0x00;
const xactCommitPrepared = 0x30;

/** A plain commit needs its header, at most three small block headers and the time: 45 bytes. */
const commitPrefix = 64;
const restorePointPrefix = 128;
/** A path of at most 1024 bytes (MAXPGPATH). */
const tablespacePrefix = 1100;
/**
 * A prepared commit keeps its transaction id behind its lists of subtransactions, files and messages. Larger
 * ones (a million subtransactions) are reported with the id 0 rather than gathered in memory.
 */
const preparedPrefixLimit = 4 * 1024 * 1024;

/** Microseconds from 1970 to 2000, where PostgreSQL counts from. */
const postgresEpoch = 946_684_800_000_000n;

/** A named restore point (`pg_create_restore_point`). */
export interface RestorePoint {
  readonly position: bigint;
  /** Microseconds since 1970. */
  readonly time: bigint;
  readonly name: string;
}

/** A tablespace made outside the data directory (`CREATE TABLESPACE`). */
export interface TablespaceCreation {
  readonly position: bigint;
  readonly oid: number;
  readonly location: string;
}

export interface WalScannerOptions {
  readonly segmentSize: number;
  /** The system identifier that long page headers must carry; unchecked when absent. */
  readonly systemId?: bigint;
}

/**
 * One pass over contiguous WAL. `start` is the beginning of a page, or else the start of a record. Feed with
 * `push`; a scanner that has thrown is not used again.
 */
export class WalScanner {
  readonly #base: bigint;
  readonly #baseHigh: number;
  readonly #baseLow: number;
  readonly #segmentSize: number;
  readonly #systemId: bigint | undefined;

  /** All places below are numbers relative to `#base`, which is page-aligned. */
  #at: number;
  /** Bytes of the current page's header that are still to come; its first bytes are in `#head`. */
  #headerHave = 0;
  #inHeader: boolean;
  readonly #head = new Uint8Array(longHeader);
  readonly #headView = new DataView(this.#head.buffer);

  /** Record in progress: its start (-1 when it began before `start`), what is left of it, what is gathered. */
  #inRecord = false;
  #recordStart = -1;
  #recordLength = 0;
  #left = 0;
  #want = 0;
  #have = 0;
  #scratch = new Uint8Array(256);
  /** Start of the last complete record, -1 when none was seen; end of it. */
  #lastStart = -1;
  #complete: number;
  /** Everything before this place is filler after a segment switch. */
  #skipTo = 0;
  /** The first page may begin inside a record that nobody saw. */
  #fresh: boolean;
  #major = 0;

  #commits: Commit[] = [];
  #restorePoints: RestorePoint[] = [];
  #tablespaces: TablespaceCreation[] = [];

  constructor(start: bigint, options: WalScannerOptions) {
    const offset = Number(start & BigInt(walPageSize - 1));
    this.#base = start - BigInt(offset);
    this.#baseHigh = Number(this.#base >> 32n);
    this.#baseLow = Number(this.#base & 0xffff_ffffn);
    this.#segmentSize = options.segmentSize;
    this.#systemId = options.systemId;
    this.#at = offset;
    this.#complete = offset;
    this.#inHeader = offset === 0;
    this.#fresh = offset === 0;
  }

  /** Where the next pushed byte belongs. */
  get position(): bigint {
    return this.#base + BigInt(this.#at);
  }

  /**
   * Everything before this place is complete records: the start of the open one, or `position` where none is
   * open. A switch is open until its filler ends, because a scan cannot begin inside that.
   */
  get complete(): bigint {
    if (this.#skipTo > this.#at) return this.#base + BigInt(this.#lastStart);
    return this.#base + BigInt(this.#inRecord ? this.#complete : this.#at);
  }

  /** The major version that wrote the pages, 0 before the first page header. */
  get major(): number {
    return this.#major;
  }

  /** Commits whose records have been completed since the last call, in log order. */
  takeCommits(): Commit[] {
    const commits = this.#commits;
    this.#commits = [];
    return commits;
  }

  /** Restore points completed since the last call, in log order. */
  takeRestorePoints(): RestorePoint[] {
    const points = this.#restorePoints;
    this.#restorePoints = [];
    return points;
  }

  /** Tablespaces whose creation has been completed since the last call, in log order. */
  takeTablespaces(): TablespaceCreation[] {
    const tablespaces = this.#tablespaces;
    this.#tablespaces = [];
    return tablespaces;
  }

  /** Consumes the next bytes of the log. Throws `postgres.wal-invalid` for what PostgreSQL cannot have written. */
  push(chunk: Uint8Array): void {
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const end = chunk.byteLength;
    let i = 0;
    while (i < end) {
      if (this.#inHeader) {
        i = this.#pageHeader(chunk, i, end);
      } else if (this.#skipTo > this.#at) {
        // Filler pages after a switch keep valid headers, which hold nothing of interest.
        i = this.#advance(i, Math.min(end - i, this.#skipTo - this.#at));
      } else if (this.#inRecord) {
        i = this.#continueRecord(chunk, i, end);
      } else {
        i = this.#records(chunk, view, i, end);
      }
    }
  }

  /** Moves on by `count` bytes, which must not reach beyond the page unless they are filler. */
  #advance(i: number, count: number): number {
    this.#at += count;
    if ((this.#at & (walPageSize - 1)) === 0) {
      this.#inHeader = this.#at >= this.#skipTo;
      this.#headerHave = 0;
    }
    return i + count;
  }

  #pageHeader(chunk: Uint8Array, i: number, end: number): number {
    const known = this.#headerHave >= 4;
    const long = known && (this.#headView.getUint16(2, true) & longHeaderFlag) !== 0;
    const need = known ? (long ? longHeader : shortHeader) : 4;
    const take = Math.min(end - i, need - this.#headerHave);
    this.#head.set(chunk.subarray(i, i + take), this.#headerHave);
    this.#headerHave += take;
    this.#at += take;
    if (known && this.#headerHave === need) {
      this.#inHeader = false;
      this.#checkPageHeader(long);
    }
    return i + take;
  }

  #checkPageHeader(long: boolean): void {
    const view = this.#headView;
    const page = this.#at - (long ? longHeader : shortHeader);
    const magic = view.getUint16(0, true);
    const info = view.getUint16(2, true);
    const major = majorOfMagic.get(magic);
    if (major === undefined || (this.#major !== 0 && major !== this.#major)) {
      throw this.#invalid(page, `the page has the magic number 0x${magic.toString(16)}`);
    }
    this.#major = major;
    if (this.#relative(view.getUint32(12, true), view.getUint32(8, true)) !== page) {
      const address = (BigInt(view.getUint32(12, true)) << 32n) | BigInt(view.getUint32(8, true));
      throw this.#invalid(page, `the page says that it belongs at ${formatLsn(address)}`);
    }
    if (long) this.#checkLongHeader(page);
    this.#checkContinuation(page, info, view.getUint32(16, true));
    this.#fresh = false;
  }

  #checkLongHeader(page: number): void {
    const segmentSize = this.#headView.getUint32(32, true);
    if (segmentSize !== this.#segmentSize) {
      throw this.#invalid(page, `the segment size is ${segmentSize}, not ${this.#segmentSize}`);
    }
    if (this.#systemId !== undefined && this.#headView.getBigUint64(24, true) !== this.#systemId) {
      throw this.#invalid(page, 'the segment belongs to another server (system identifier)');
    }
  }

  #checkContinuation(page: number, info: number, remaining: number): void {
    const continued = (info & firstIsContrecord) !== 0;
    if (this.#inRecord) {
      if ((info & firstIsOverwriteContrecord) !== 0) {
        // The server crashed in the middle of this record and recovery gave it up: what follows replaces it.
        this.#inRecord = false;
      } else if (!continued || remaining !== this.#left) {
        throw this.#invalid(
          page,
          `${this.#left} bytes of a record must follow, the page announces ${remaining}`,
        );
      }
      return;
    }
    if (!continued) return;
    if (!this.#fresh) throw this.#invalid(page, 'the page continues a record that did not begin');
    this.#inRecord = true;
    this.#recordStart = -1;
    this.#left = remaining;
    this.#want = 0;
    this.#have = 0;
  }

  /** The hot path: whole records inside this page and chunk are skipped by their lengths. */
  #records(chunk: Uint8Array, view: DataView, from: number, end: number): number {
    const inPage = this.#at & (walPageSize - 1);
    const limit = Math.min(end, from + walPageSize - inPage);
    const shift = this.#at - from;
    let i = from;
    let last = this.#lastStart;
    // Records start at multiples of eight; the filler before one may itself be cut by a chunk's end.
    let start = i + (-(i + shift) & 7);
    while (start + recordHeader <= limit) {
      const length = view.getUint32(start, true);
      if (start + length > limit || length < recordHeader) break;
      const rmid = view.getUint8(start + 17);
      this.#checkLink(view, start, start + shift, last);
      if (rmid <= rmXact || rmid === rmTablespace) {
        this.#recordLength = length;
        this.#recordStart = start + shift;
        this.#finish(chunk.subarray(start, start + length), view.getUint8(start + 16), rmid);
      }
      last = start + shift;
      i = start + length;
      if (this.#skipTo > i + shift) break;
      start = i + (-(i + shift) & 7);
    }
    this.#lastStart = last;
    if (i > from) this.#advance(from, i - from);
    if (this.#skipTo > this.#at || i >= limit) return i;
    return this.#beginRecord(i, limit);
  }

  /** Either eats the filler before the next record or opens a record that does not fit here whole. */
  #beginRecord(i: number, limit: number): number {
    const filler = -this.#at & 7;
    if (filler > 0) return this.#advance(i, Math.min(filler, limit - i));
    this.#complete = this.#at;
    this.#inRecord = true;
    this.#recordStart = this.#at;
    this.#recordLength = 0;
    this.#left = recordHeader;
    this.#want = recordHeader;
    this.#have = 0;
    return i;
  }

  /** Gathers the part of a record that matters and skips the rest, over pages and chunks. */
  #continueRecord(chunk: Uint8Array, i: number, end: number): number {
    const room = Math.min(end - i, walPageSize - (this.#at & (walPageSize - 1)));
    if (this.#left === 0) {
      this.#endRecord();
      return i;
    }
    let take = Math.min(room, this.#left);
    if (this.#have < this.#want) {
      // The length comes first and alone: the page header in the middle of a record is checked against it.
      const goal = this.#recordLength === 0 && this.#recordStart >= 0 ? 4 : this.#want;
      take = Math.min(take, goal - this.#have);
      this.#scratch.set(chunk.subarray(i, i + take), this.#have);
      this.#have += take;
    }
    this.#left -= take;
    const next = this.#advance(i, take);
    if (this.#recordStart >= 0) this.#learn();
    if (this.#left === 0) this.#endRecord();
    return next;
  }

  /** Once length, then header of the record in progress are there, decides how much of it is wanted. */
  #learn(): void {
    const view = new DataView(this.#scratch.buffer);
    if (this.#recordLength === 0 && this.#have >= 4) {
      const length = view.getUint32(0, true);
      if (length < recordHeader) {
        throw this.#invalid(this.#recordStart, `a record has the length ${length}`);
      }
      this.#recordLength = length;
      this.#left = length - this.#have;
    }
    if (this.#have === recordHeader && this.#want === recordHeader) {
      this.#checkLink(view, 0, this.#recordStart, this.#lastStart);
      this.#want = Math.min(
        this.#recordLength,
        prefixOf(this.#scratch[16]!, this.#scratch[17]!) || recordHeader,
      );
      if (this.#want > this.#scratch.length) {
        const larger = new Uint8Array(this.#want);
        larger.set(this.#scratch.subarray(0, this.#have));
        this.#scratch = larger;
      }
    }
  }

  #endRecord(): void {
    this.#inRecord = false;
    if (this.#recordStart >= 0) {
      this.#lastStart = this.#recordStart;
      this.#finish(this.#scratch.subarray(0, this.#have), this.#scratch[16]!, this.#scratch[17]!);
      // A record of usual size is enough memory to keep between records.
      if (this.#scratch.length > 65536) this.#scratch = new Uint8Array(256);
    }
    this.#complete = this.#at;
  }

  /** `record` is the whole record or the prefix of it that `prefixOf` asked for. */
  #finish(record: Uint8Array, info: number, rmid: number): void {
    if (rmid === rmXact) {
      const operation = info & xactOpMask;
      if (operation !== xactCommit && operation !== xactCommitPrepared) return;
      this.#commits.push(this.#commit(record, info, operation === xactCommitPrepared));
    } else if (rmid === rmXlog && (info & 0xf0) === infoSwitch) {
      const end = this.#recordStart + this.#recordLength;
      this.#skipTo = this.#segmentEnd(end);
    } else if (rmid === rmXlog && (info & 0xf0) === infoRestorePoint) {
      this.#restorePoints.push(this.#restorePoint(record));
    } else if (rmid === rmTablespace && (info & 0xf0) === infoTablespaceCreate) {
      this.#tablespaces.push(this.#tablespace(record));
    }
  }

  #commit(record: Uint8Array, info: number, prepared: boolean): Commit {
    const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    const data = this.#mainData(view);
    if (data + 8 > record.byteLength) throw this.#invalid(this.#recordStart, 'a commit record is too short');
    const time = view.getBigInt64(data, true) + postgresEpoch;
    let id = BigInt(view.getUint32(4, true));
    if (prepared) {
      const whole = record.byteLength === this.#recordLength;
      const found = whole ? preparedId(view, data, info, this.#major) : 0;
      if (found === undefined) throw this.#invalid(this.#recordStart, 'a prepared commit is malformed');
      id = BigInt(found);
    }
    return { position: this.#base + BigInt(this.#recordStart), time, id };
  }

  #restorePoint(record: Uint8Array): RestorePoint {
    const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    const data = this.#mainData(view);
    if (data + 72 > record.byteLength) throw this.#invalid(this.#recordStart, 'a restore point is too short');
    const name = record.subarray(data + 8, data + 72);
    const stop = name.indexOf(0);
    return {
      position: this.#base + BigInt(this.#recordStart),
      time: view.getBigInt64(data, true) + postgresEpoch,
      name: new TextDecoder().decode(stop < 0 ? name : name.subarray(0, stop)),
    };
  }

  #tablespace(record: Uint8Array): TablespaceCreation {
    const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
    const data = this.#mainData(view);
    const path = record.subarray(data + 4);
    const stop = path.indexOf(0);
    if (stop < 0) throw this.#invalid(this.#recordStart, 'the path of a tablespace does not end');
    return {
      position: this.#base + BigInt(this.#recordStart),
      oid: view.getUint32(data, true),
      location: new TextDecoder().decode(path.subarray(0, stop)),
    };
  }

  /** Offset of a record's main data behind its headers; these records have no block references. */
  #mainData(view: DataView): number {
    let at = recordHeader;
    while (at < view.byteLength) {
      const id = view.getUint8(at);
      if (id === 255) return at + 2;
      if (id === 254) return at + 5;
      if (id === 253) at += 3;
      else if (id === 252) at += 5;
      else break;
    }
    throw this.#invalid(this.#recordStart, 'a record that must hold only data holds something else');
  }

  #checkLink(view: DataView, offset: number, start: number, last: number): void {
    const previous = this.#relative(view.getUint32(offset + 12, true), view.getUint32(offset + 8, true));
    if (last >= 0 ? previous !== last : previous >= start) {
      const link =
        (BigInt(view.getUint32(offset + 12, true)) << 32n) | BigInt(view.getUint32(offset + 8, true));
      throw this.#invalid(start, `a record names ${formatLsn(link)} as the record before it`);
    }
  }

  #relative(high: number, low: number): number {
    return (high - this.#baseHigh) * 0x1_0000_0000 + (low - this.#baseLow);
  }

  #segmentEnd(at: number): number {
    const segment = BigInt(this.#segmentSize);
    const lsn = this.#base + BigInt(at);
    return Number(((lsn + segment - 1n) / segment) * segment - this.#base);
  }

  #invalid(at: number, why: string): HoldfastError {
    const lsn = formatLsn(this.#base + BigInt(at));
    return new HoldfastError('postgres.wal-invalid', `The write-ahead log at ${lsn} is not valid: ${why}.`, {
      details: { lsn },
    });
  }
}

/** How many bytes from the start of a record are wanted; 0 when it does not matter. */
function prefixOf(info: number, rmid: number): number {
  if (rmid === rmXact) {
    const operation = info & xactOpMask;
    if (operation === xactCommit) return commitPrefix;
    return operation === xactCommitPrepared ? preparedPrefixLimit : 0;
  }
  if (rmid === rmTablespace) return (info & 0xf0) === infoTablespaceCreate ? tablespacePrefix : 0;
  return rmid === rmXlog && (info & 0xf0) === infoRestorePoint ? restorePointPrefix : 0;
}

/** The id of the transaction that was prepared; undefined when the record contradicts itself. */
function preparedId(view: DataView, data: number, info: number, major: number): number | undefined {
  if ((info & 0x80) === 0 || data + 12 > view.byteLength) return undefined;
  const flags = view.getUint32(data + 8, true);
  let at = data + 12;
  if ((flags & 0x1) !== 0) at += 8;
  const lists: [number, number][] = [
    [0x2, 4],
    [0x4, 12],
    [0x100, droppedStatsSize(major)],
    [0x8, 16],
  ];
  for (const [flag, size] of lists) {
    if ((flags & flag) === 0) continue;
    if (at + 4 > view.byteLength) return undefined;
    at += 4 + view.getUint32(at, true) * size;
  }
  if ((flags & 0x10) === 0 || at + 4 > view.byteLength) return undefined;
  return view.getUint32(at, true);
}

/** `xl_xact_stats_item` keeps a 64-bit object id since PostgreSQL 18. */
function droppedStatsSize(major: number): number {
  return major >= 18 ? 16 : 12;
}
