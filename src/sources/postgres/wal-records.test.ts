import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import { WalScanner } from './wal-records.ts';

const segmentSize = 1024 * 1024;
const page = 8192;

interface Planned {
  readonly kind: 'filler' | 'commit' | 'prepared' | 'switch' | 'restore-point';
  readonly size: number;
  readonly xid: number;
}

/** Writes pages and records by the book, apart from the scanner's own ideas of them. */
class WalWriter {
  readonly bytes = Buffer.alloc(6 * segmentSize);
  readonly start: bigint;
  at = 0;
  previous = 0n;
  readonly commits: { position: bigint; id: bigint; time: bigint }[] = [];

  constructor(start: bigint) {
    this.start = start;
  }

  #header(remaining: number): void {
    const long = (this.start + BigInt(this.at)) % BigInt(segmentSize) === 0n;
    const at = this.at;
    this.bytes.writeUInt16LE(0xd110, at);
    this.bytes.writeUInt16LE((remaining > 0 ? 1 : 0) | (long ? 2 : 0), at + 2);
    this.bytes.writeUInt32LE(1, at + 4);
    this.bytes.writeBigUInt64LE(this.start + BigInt(at), at + 8);
    this.bytes.writeUInt32LE(remaining, at + 16);
    if (long) {
      this.bytes.writeBigUInt64LE(4711n, at + 24);
      this.bytes.writeUInt32LE(segmentSize, at + 32);
      this.bytes.writeUInt32LE(page, at + 36);
    }
    this.at += long ? 40 : 24;
  }

  add(planned: Planned): void {
    const record = this.#record(planned);
    this.at += -this.at & 7;
    if (this.at % page === 0) this.#header(0);
    const position = this.start + BigInt(this.at);
    record.writeBigUInt64LE(this.previous, 8);
    this.previous = position;
    for (let done = 0; done < record.length; ) {
      if (this.at % page === 0) this.#header(record.length - done);
      const take = Math.min(record.length - done, page - (this.at % page));
      record.copy(this.bytes, this.at, done, done + take);
      done += take;
      this.at += take;
    }
    if (planned.kind === 'commit' || planned.kind === 'prepared') {
      this.commits.push({
        position,
        id: BigInt(planned.xid),
        time: 946_684_800_000_000n + BigInt(planned.xid),
      });
    }
    if (planned.kind === 'switch') this.#fill();
  }

  #fill(): void {
    const rest = Number((this.start + BigInt(this.at)) % BigInt(segmentSize));
    if (rest === 0) return;
    const end = this.at + segmentSize - rest;
    for (this.at += (page - (this.at % page)) % page; this.at < end; this.at += page - 24) this.#header(0);
    this.at = end;
  }

  #record(planned: Planned): Buffer {
    let info = 0;
    let rmid = 10;
    let main = Buffer.alloc(planned.size, 0xee);
    if (planned.kind === 'commit') {
      rmid = 1;
      main = Buffer.alloc(8 + planned.size, 0xee);
      main.writeBigInt64LE(BigInt(planned.xid), 0);
    } else if (planned.kind === 'prepared') {
      rmid = 1;
      info = 0x30 | 0x80;
      main = Buffer.alloc(8 + 4 + 8 + 4 + 4 * planned.size + 4 + 4);
      main.writeBigInt64LE(BigInt(planned.xid), 0);
      main.writeUInt32LE(0x1 | 0x2 | 0x10, 8);
      main.writeUInt32LE(planned.size, 20);
      main.writeUInt32LE(planned.xid, 24 + 4 * planned.size);
    } else if (planned.kind === 'switch') {
      rmid = 0;
      info = 0x40;
      main = Buffer.alloc(0);
    } else if (planned.kind === 'restore-point') {
      rmid = 0;
      info = 0x70;
      main = Buffer.alloc(72);
      main.write('here', 8);
    }
    const short = main.length <= 255;
    const header = Buffer.alloc(24 + (main.length === 0 ? 0 : short ? 2 : 5));
    header.writeUInt32LE(header.length + main.length, 0);
    header.writeUInt32LE(planned.kind === 'prepared' ? 0 : planned.xid, 4);
    header.writeUInt8(info, 16);
    header.writeUInt8(rmid, 17);
    if (main.length > 0 && short) {
      header.writeUInt8(255, 24);
      header.writeUInt8(main.length, 25);
    } else if (main.length > 0) {
      header.writeUInt8(254, 24);
      header.writeUInt32LE(main.length, 25);
    }
    return Buffer.concat([header, main]);
  }

  get written(): Buffer {
    return this.bytes.subarray(0, this.at);
  }
}

const planned = fc.record({
  kind: fc.constantFrom<Planned['kind']>('filler', 'filler', 'commit', 'commit', 'prepared', 'restore-point'),
  size: fc.oneof(fc.nat(300), fc.nat(300), fc.nat(30_000)),
  xid: fc.integer({ min: 3, max: 0xffff_ffff }),
});
const plan = fc.tuple(
  fc.array(planned, { maxLength: 60 }),
  fc.boolean(),
  fc.array(planned, { maxLength: 20 }),
);
const starts = fc.constantFrom(0x100000n, 0x1_0000_0000n, 0xfff0_0000n, 0xffff_ffff_0010_0000n);

function write(start: bigint, [before, withSwitch, after]: [Planned[], boolean, Planned[]]): WalWriter {
  const writer = new WalWriter(start);
  for (const record of before) writer.add(record);
  if (withSwitch) writer.add({ kind: 'switch', size: 0, xid: 0 });
  for (const record of after) writer.add(record);
  return writer;
}

describe('the scanner', () => {
  it('finds every commit, wherever the stream is cut', () => {
    fc.assert(
      fc.property(
        starts,
        plan,
        fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1 }),
        (start, records, cuts) => {
          const writer = write(start, records);
          const scanner = new WalScanner(start, { segmentSize, systemId: 4711n });
          const found = [];
          let complete: bigint = start;
          for (let at = 0, turn = 0; at < writer.at; turn += 1) {
            const size = cuts[turn % cuts.length]!;
            scanner.push(writer.written.subarray(at, at + size));
            at = Math.min(at + size, writer.at);
            expect(scanner.position).toBe(start + BigInt(at));
            expect(scanner.complete >= complete && scanner.complete <= scanner.position).toBe(true);
            complete = scanner.complete;
            found.push(...scanner.takeCommits());
          }
          expect(found).toEqual(writer.commits);
          expect(complete).toBe(start + BigInt(writer.at));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('goes on from what it called complete', () => {
    fc.assert(
      fc.property(plan, fc.nat(), (records, cut) => {
        const writer = write(0x100000n, records);
        const at = writer.at === 0 ? 0 : cut % writer.at;
        const first = new WalScanner(0x100000n, { segmentSize });
        first.push(writer.written.subarray(0, at));
        const from = Number((first.complete - 0x100000n) & ~BigInt(page - 1));
        const second = new WalScanner(0x100000n + BigInt(from), { segmentSize });
        second.push(writer.written.subarray(from, at));
        second.takeCommits();
        second.push(writer.written.subarray(at));
        expect([...first.takeCommits(), ...second.takeCommits()]).toEqual(writer.commits);
      }),
      { numRuns: 60 },
    );
  });

  it('refuses garbage with its own error and never hangs', () => {
    fc.assert(
      fc.property(
        plan,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 9000 }),
        (records, flips, size) => {
          const { written } = write(0x100000n, records);
          if (written.length === 0) return;
          for (const [at, mask] of flips) written[at % written.length]! ^= mask;
          expectWalError(() => {
            const scanner = new WalScanner(0x100000n, { segmentSize, systemId: 4711n });
            for (let at = 0; at < written.length; at += size) scanner.push(written.subarray(at, at + size));
          });
        },
      ),
      { numRuns: 100 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), (bytes) => {
        expectWalError(() => new WalScanner(0x100008n, { segmentSize }).push(bytes));
      }),
    );
  });

  it('names the place where the log is not valid', () => {
    const { written } = write(0x100000n, [[{ kind: 'commit', size: 30_000, xid: 5 }], false, []]);
    const scanner = new WalScanner(0x100000n, { segmentSize });
    written[page + 16]! ^= 1;
    expect(() => scanner.push(written)).toThrowError(/0\/102000 .*announces/);
    expect(() => new WalScanner(0x100000n, { segmentSize, systemId: 1n }).push(written)).toThrowError(
      /another server/,
    );
    expect(() => new WalScanner(0x200000n, { segmentSize }).push(written)).toThrowError(
      /belongs at 0\/100000/,
    );
    expect(() => new WalScanner(0x100000n, { segmentSize: 2 ** 24 }).push(written)).toThrowError(
      /segment size/,
    );
  });

  it('lets a record go that recovery gave up', () => {
    const writer = new WalWriter(0x100000n);
    writer.add({ kind: 'commit', size: 10, xid: 3 });
    const kept = writer.previous;
    writer.add({ kind: 'commit', size: 30_000, xid: 4 });
    writer.at = page;
    const head = writer.bytes.subarray(page, page + 24);
    head.writeUInt16LE(0x8, 2);
    head.writeUInt32LE(0, 16);
    writer.at += 24;
    writer.previous = kept;
    writer.add({ kind: 'commit', size: 10, xid: 5 });
    const scanner = new WalScanner(0x100000n, { segmentSize });
    scanner.push(writer.written);
    expect(scanner.takeCommits().map((commit) => commit.id)).toEqual([3n, 5n]);
  });
});

function expectWalError(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!isHoldfastError(error, 'postgres.wal-invalid')) throw error;
  }
}
