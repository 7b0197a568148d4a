import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn, parseSegmentName, segmentName, segmentStart } from './position.ts';
import { ScratchCluster } from './scratch-cluster.test-helper.ts';
import { WalScanner } from './wal-records.ts';

const segmentSize = 1024 * 1024;
let cluster: ScratchCluster;
let end: bigint;

beforeAll(async () => {
  cluster = await ScratchCluster.create({
    initdb: ['--wal-segsize=1'],
    conf: `
      wal_keep_size = 2GB
      wal_level = logical
      synchronous_commit = off
      autovacuum = off`,
  });
  await cluster.pgbench(['-i', '-s', '2', '-q']);
  await cluster.pgbench(['-c', '4', '-t', '300', '-n']);
  await cluster.sql(`create table big (id int, body text); alter table big alter body set storage external`);
  // Records of many pages, and of several segments: the commit that follows each of them must be found.
  await cluster.sql(`select pg_logical_emit_message(true, 'big', repeat('x', 3000000))`);
  await cluster.sql(
    `insert into big select 1, string_agg(md5(i::text), '') from generate_series(1, 50000) i`,
  );
  await cluster.sql(
    `do $$ begin for i in 1..3000 loop begin insert into big values (i); exception when others then null; end; end loop; end $$`,
  );
  for (let i = 0; i < 3; i += 1) {
    await cluster.sql(`create table q${i} (a int)`);
    await cluster.sql(
      `begin; create table p${i} (a int); savepoint s; insert into p${i} values (1); drop table if exists q${i}; prepare transaction 'p${i}'`,
    );
    await cluster.sql(`select txid_current(); select pg_switch_wal()`);
    await cluster.sql(`commit prepared 'p${i}'`);
  }
  await cluster.sql(`begin; create table gone (a int); prepare transaction 'gone'`);
  await cluster.sql(`rollback prepared 'gone'`);
  await cluster.sql(`select pg_create_restore_point('before the drop')`);
  await cluster.sql(`select pg_replication_origin_create('o'); `);
  await cluster.sql(
    `select pg_replication_origin_session_setup('o'); begin; select pg_replication_origin_xact_setup('0/1', now()); insert into big values (-1); commit`,
  );
  await cluster.pgbench(['-c', '4', '-t', '50', '-n']);
  await cluster.sql(`select pg_switch_wal()`);
  await cluster.sql(`insert into big values (0)`);
  // A crash and its recovery are in the log too.
  await cluster.stop('immediate');
  await cluster.start();
  await cluster.pgbench(['-c', '2', '-t', '50', '-n']);
  end = parseLsn(await cluster.sql(`checkpoint; select pg_current_wal_flush_lsn()`));
}, 120_000);

afterAll(() => cluster?.destroy());

function wal(): { start: bigint; bytes: Buffer } {
  const folder = join(cluster.data, 'pg_wal');
  const names = readdirSync(folder)
    .filter((name) => parseSegmentName(name, segmentSize) !== undefined)
    .sort();
  const start = parseSegmentName(names[0]!, segmentSize)!.lsn;
  const last = names.indexOf(segmentName(1, segmentStart(end - 1n, segmentSize), segmentSize));
  const bytes = Buffer.concat(names.slice(0, last + 1).map((name) => readFileSync(join(folder, name))));
  return { start, bytes: bytes.subarray(0, Number(end - start)) };
}

interface Found {
  readonly lsn: string;
  readonly xid: string;
  readonly time: string;
}

/** What PostgreSQL's own reader finds, from the first record of the first segment on. */
async function oracle(): Promise<Found[]> {
  const { start } = wal();
  const text = await cluster
    .tool('pg_waldump', [
      '-p',
      join(cluster.data, 'pg_wal'),
      '-r',
      'Transaction',
      segmentName(1, start, segmentSize),
      segmentName(1, end - 1n, segmentSize),
    ])
    .catch((error: { stdout: string }) => error.stdout);
  const found: Found[] = [];
  for (const line of text.split('\n')) {
    const match =
      /tx:\s+(\d+), lsn: ([0-9A-F/]+), .*desc: (COMMIT|COMMIT_PREPARED) (?:(\d+): )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)/.exec(
        line,
      );
    if (match === null) continue;
    const [, tx, lsn, , prepared, time] = match;
    found.push({ lsn: parseLsn(lsn!).toString(), xid: prepared ?? tx!, time: microseconds(time!) });
  }
  return found;
}

/** pg_waldump prints in its process's zone, which is UTC here. */
function microseconds(text: string): string {
  const [seconds, fraction] = text.split('.');
  return (
    BigInt(Date.parse(`${seconds!.replace(' ', 'T')}Z`)) * 1000n +
    BigInt(fraction!.padEnd(6, '0'))
  ).toString();
}

function scan(chunk: () => number): { scanner: WalScanner; found: Found[] } {
  const { start, bytes } = wal();
  const scanner = new WalScanner(start, { segmentSize });
  const found: Found[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = chunk();
    scanner.push(bytes.subarray(at, at + size));
    at += size;
    for (const commit of scanner.takeCommits()) {
      found.push({
        lsn: commit.position.toString(),
        xid: commit.id.toString(),
        time: commit.time.toString(),
      });
    }
  }
  return { scanner, found };
}

describe('the scanner, against pg_waldump', () => {
  it('finds the same commits, times and transactions, however the log is cut', async () => {
    const expected = await oracle();
    expect(expected.length).toBeGreaterThan(1500);
    const whole = scan(() => 1 << 30);
    expect(whole.found).toEqual(expected);
    expect(whole.scanner.position).toBe(end);
    expect(whole.scanner.complete).toBe(end);
    expect(whole.scanner.major).toBe(Number(/(\d+)/.exec(await cluster.tool('pg_waldump', ['-V']))![1]));
    expect(whole.scanner.takeRestorePoints()).toMatchObject([{ name: 'before the drop' }]);
    let seed = 7;
    const random = () => {
      seed = (seed * 1103515245 + 12345) & 0x7fffffff;
      return seed;
    };
    expect(scan(() => 1 + (random() % 100)).found).toEqual(expected);
    expect(scan(() => 1 + (random() % 20000)).found).toEqual(expected);
    expect(scan(() => 8192).found).toEqual(expected);
  }, 60_000);

  it('starts at any record and any page', async () => {
    const { start, bytes } = wal();
    const expected = await oracle();
    for (const index of [0, 10, 500, expected.length - 1]) {
      const at = BigInt(expected[index]!.lsn);
      const scanner = new WalScanner(at, { segmentSize });
      scanner.push(bytes.subarray(Number(at - start)));
      expect(scanner.takeCommits().map((commit) => commit.position.toString())).toEqual(
        expected.slice(index).map((commit) => commit.lsn),
      );
    }
    for (let page = 1; page < 40; page += 1) {
      const from = page * 8192 * 7;
      const scanner = new WalScanner(start + BigInt(from), { segmentSize });
      scanner.push(bytes.subarray(from));
      const seen = scanner.takeCommits().map((commit) => commit.position.toString());
      expect(seen).toEqual(expected.slice(-seen.length).map((commit) => commit.lsn));
      const first = expected.findIndex((commit) => BigInt(commit.lsn) >= start + BigInt(from));
      expect(seen.length).toBe(expected.length - first);
    }
  });
});
