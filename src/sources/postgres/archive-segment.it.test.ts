/** Segments of a real server, cut one by one, against one scan over all of them. */
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresBinaries, requireComponent } from '../../../scripts/rig.ts';
import type { Commit, LogStretch } from '../../repository/contract.ts';
import { archiveName, readControlFile, readSegmentHeader } from './archive-file.ts';
import { type Carry, fits, SegmentCutter, timelineFacts } from './archive-segment.ts';
import { lsnOf, positionOf } from './position.ts';
import { initScratchCluster, type ScratchServer, startServer } from './server.ts';
import { WalScanner } from './wal-records.ts';

const size = 1024 * 1024;

interface Segment {
  readonly name: string;
  readonly bytes: Buffer;
}

describe.skipIf(!(await requireComponent('postgres-15')))('cutting segments', () => {
  let folder: string;
  let server: ScratchServer;
  const segments: Segment[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-cut-'));
    await chmod(folder, 0o711);
    const { binDir } = await postgresBinaries(15);
    const dataDir = join(folder, 'server');
    const settings = { wal_keep_size: '64MB', max_wal_size: '512MB' };
    await initScratchCluster({ binDir, dataDir, args: ['--wal-segsize=1'], settings });
    server = await startServer({ binDir, dataDir });
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    await client.query('CREATE TABLE t (id serial, note text)');
    for (let i = 0; i < 1_500; i += 1) await client.query(`INSERT INTO t (note) VALUES (repeat('x', ${i}))`);
    // A record over several segments, and a switch in the middle of one.
    await client.query(`SELECT pg_logical_emit_message(true, 'm', repeat(md5(random()::text), 100000))`);
    for (let i = 0; i < 1_500; i += 1) await client.query(`INSERT INTO t (note) VALUES (repeat('y', ${i}))`);
    await client.query(`SELECT pg_create_restore_point('here')`);
    await client.query('SELECT pg_switch_wal()');
    await client.query('INSERT INTO t DEFAULT VALUES');
    const { rows } = await client.query('SELECT pg_walfile_name(pg_switch_wal()) AS last');
    await client.end();
    const wal = join(dataDir, 'pg_wal');
    const names = (await readdir(wal)).filter((name) => /^[0-9A-F]{24}$/.test(name) && name <= rows[0].last);
    for (const name of names.sort()) {
      const bytes = await readFile(join(wal, name));
      segments.push({ name, bytes });
    }
  }, 60_000);

  afterAll(async () => {
    await server?.stop('immediate');
    await rm(folder, { recursive: true, force: true });
  });

  function cut({ name, bytes }: Segment, carry: Carry | undefined, chunk = size) {
    const parsed = archiveName(name);
    const header = readSegmentHeader(parsed, bytes, bytes.length);
    const timeline = timelineFacts(header.systemId, null, {});
    if (carry !== undefined) expect(fits(header, carry, bytes.subarray(0, 8192))).toBe(true);
    const cutter = new SegmentCutter({ name: parsed, header, timeline, carry });
    const stretches: LogStretch[] = [];
    for (let at = 0; at < bytes.length; at += chunk) {
      cutter.push(bytes.subarray(at, at + chunk));
      stretches.push(...cutter.take());
    }
    const end = cutter.end();
    stretches.push(...cutter.take());
    return { header, end, stretches };
  }

  function whole(): { readonly commits: Commit[]; readonly bytes: Buffer; readonly start: bigint } {
    const first = segments[0]!;
    const { lsn } = readSegmentHeader(archiveName(first.name), first.bytes, size);
    const bytes = Buffer.concat(segments.map((segment) => segment.bytes));
    const scanner = new WalScanner(lsn, { segmentSize: size });
    scanner.push(bytes);
    return { commits: scanner.takeCommits(), bytes, start: lsn };
  }

  test('the control file says what the segments say', async () => {
    const control = await readControlFile(join(server.dataDir, 'global', 'pg_control'));
    const { systemId } = readSegmentHeader(archiveName(segments[0]!.name), segments[0]!.bytes, size);
    expect(control).toEqual({ systemId, segmentSize: size });
  });

  test.each([size, 65_536])(
    'all commits are found once, each in the part that holds it whole (pieces of %i)',
    (chunk) => {
      const oracle = whole();
      const seen = new Map<bigint, Commit>();
      let carry: Carry | undefined;
      for (const segment of segments) {
        const { end, stretches } = cut(segment, carry, chunk);
        carry = end.carry;
        // The first ends what nobody knows the beginning of.
        if (segment !== segments[0]) expect(end.joined).toBe(true);
        for (const stretch of stretches) {
          if (stretch.from === stretch.to) continue;
          const [from, to] = [lsnOf(stretch.from), lsnOf(stretch.to)];
          const data = Buffer.concat(stretch.data);
          const at = Number(from - oracle.start);
          expect(Number(to - from)).toBe(data.length);
          expect(data.equals(oracle.bytes.subarray(at, at + data.length))).toBe(true);
          for (const commit of stretch.commits) {
            expect(commit.position >= from && commit.position < to).toBe(true);
            expect(seen.has(commit.position)).toBe(false);
            seen.set(commit.position, commit);
          }
        }
        // What follows may rely on every byte of the file.
        const last = stretches.at(-1)!;
        const { header } = cut(segment, undefined);
        expect(last.to).toBe(positionOf(header.lsn + BigInt(size)));
      }
      expect([...seen.values()]).toEqual(oracle.commits);
      expect(oracle.commits.length).toBeGreaterThan(3_000);
    },
  );

  test('without the segment before, the end of an unknown record is kept as a file, and the log begins behind it', () => {
    const segment = segments.find(({ name, bytes }) => {
      const { continued } = readSegmentHeader(archiveName(name), bytes, size);
      return continued > 0 && continued < size / 2;
    })!;
    const { header, end, stretches } = cut(segment, undefined);
    expect(end.joined).toBe(false);
    const [head, log] = stretches;
    expect(head).toMatchObject({ meta: { file: segment.name, offset: 0 }, to: head!.from });
    const length = head!.data.reduce((sum, piece) => sum + piece.length, 0);
    expect(length).toBeGreaterThanOrEqual(header.continued);
    expect(lsnOf(log!.from)).toBe(header.lsn + BigInt(length));
    const scanner = new WalScanner(header.lsn, { segmentSize: size });
    scanner.push(segment.bytes.subarray(0, length));
    expect(scanner.complete).toBe(header.lsn + BigInt(length));
  });

  test('the carry of another segment does not fit', () => {
    const [, second, third] = segments;
    const { end } = cut(second!, undefined);
    const header = readSegmentHeader(archiveName(third!.name), third!.bytes, size);
    const { bytes, from } = end.carry!;
    if (bytes === null || bytes.length < 40) return;
    const other = Buffer.from(bytes);
    other.writeUInt32LE(other.readUInt32LE(0) + 8, 0);
    expect(fits(header, { from, bytes: other }, third!.bytes.subarray(0, 8192))).toBe(false);
  });

  test('at a fork the bytes before it belong to the parent', () => {
    const { name, bytes } = segments[0]!;
    const parsed = { ...archiveName(name), timeline: 2 };
    const header = readSegmentHeader(archiveName(name), bytes, size);
    const scanner = new WalScanner(header.lsn, { segmentSize: size });
    scanner.push(bytes.subarray(0, size / 2));
    const fork = scanner.complete;
    const history = `1\t${(fork >> 32n).toString(16)}/${(fork & 0xffff_ffffn).toString(16)}\twhy\n`;
    const timeline = timelineFacts(header.systemId, history, { '00000002.history': history });
    const cutter = new SegmentCutter({ name: parsed, header, timeline, carry: undefined });
    cutter.push(bytes);
    cutter.end();
    const stretches = cutter.take().filter(({ from, to }) => from < to);
    expect(stretches[0]).toMatchObject({
      lineage: `${header.systemId}/1`,
      to: positionOf(fork),
      ancestors: [],
    });
    expect(stretches[1]).toMatchObject({ lineage: `${header.systemId}/2`, from: positionOf(fork) });
    expect(stretches[1]!.ancestors).toEqual([
      { lineage: `${header.systemId}/1`, position: positionOf(fork) },
    ]);
  });
});
