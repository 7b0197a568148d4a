import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSource } from '../open.ts';
import type { Source } from '../source.ts';
import { MemorySink, testContext } from './memory-repository.test-helper.ts';
import { lsnOf, segmentNames } from './position.ts';
import { ScratchCluster } from './scratch-cluster.test-helper.ts';
import { openSnapshotMeta } from './snapshot-meta.ts';

let cluster: ScratchCluster;
let source: Source;
let tablespaceOid: string;

beforeAll(async () => {
  cluster = await ScratchCluster.create({
    initdb: ['--data-checksums', '--wal-segsize=1'],
    conf: 'autovacuum = off',
  });
  const space = join(cluster.root, 'space');
  mkdirSync(space);
  cluster.own(space);
  await cluster.sql(`create tablespace extra location '${space}'`);
  await cluster.sql(`
    create table empty (id int);
    create table ledger as select i as id, md5(i::text) as note from generate_series(1, 30000) i;
    create table far (id int) tablespace extra;
    insert into far select generate_series(1, 5000);
    create unlogged table passing (id int);
    insert into passing select generate_series(1, 5000);
    select lo_from_bytea(0, decode(repeat('ab', 100000), 'hex'))`);
  tablespaceOid = await cluster.sql(`select oid from pg_tablespace where spcname = 'extra'`);
  source = openSource('ledger', 'postgres', { url: cluster.url, snapshot: 'remote' });
}, 60_000);

afterAll(() => cluster?.destroy());

/** Files below a folder by their relative paths. */
function tree(root: string, below = ''): Map<string, Buffer | null> {
  const found = new Map<string, Buffer | null>();
  for (const name of readdirSync(join(root, below))) {
    const path = below === '' ? name : `${below}/${name}`;
    if (statSync(join(root, path)).isDirectory()) {
      found.set(path, null);
      for (const [inner, bytes] of tree(root, path)) found.set(inner, bytes);
    } else found.set(path, readFileSync(join(root, path)));
  }
  return found;
}

/** Files that differ between any two backups of the same data. */
const perBackup =
  /^(backup_label|backup_manifest|tablespace_map|global\/pg_control|pg_wal(\/.*)?|pg_logical\/.*)$/;

describe('a remote snapshot', () => {
  it('holds what pg_basebackup brings, file by file', async () => {
    await cluster.sql('checkpoint');
    const copy = join(cluster.root, 'copy');
    await cluster.tool('pg_basebackup', [
      ...[
        '-h',
        '127.0.0.1',
        '-p',
        String(cluster.port),
        '-U',
        'postgres',
        '-D',
        copy,
        '-X',
        'none',
        '-c',
        'fast',
      ],
      ...['-T', `${join(cluster.root, 'space')}=${join(cluster.root, 'space-copy')}`],
    ]);
    const sink = new MemorySink(3);
    const context = testContext();
    const facts = await source.snapshot({ ...context, sink });
    const expected = tree(copy);
    const compared = [...expected].filter(([path]) => !perBackup.test(path));
    expect(compared.length).toBeGreaterThan(900);
    for (const [path, bytes] of compared) {
      const entry = sink.entries.get(path);
      expect(entry, path).toBeDefined();
      if (bytes !== null) expect(entry!.content.equals(bytes), path).toBe(true);
      else expect(entry!.meta.type, path).toBe('directory');
      expect(entry!.meta.mode & 0o777, path).toBe(statSync(join(copy, path)).mode & 0o777);
    }
    const known = new Set(expected.keys());
    const more = [...sink.entries.keys()].filter((path) => !known.has(path) && !/^pg_wal\//.test(path));
    // pg_basebackup makes a symbolic link of it, and a tablespace needs its map to be put elsewhere.
    expect(more.filter((path) => !path.startsWith('pg_tblspc/'))).toEqual(['tablespace_map']);
    expect(facts.warnings).toEqual([]);
  }, 60_000);

  it('stands alone: label, map, control file and the log from start to stop', async () => {
    const sink = new MemorySink();
    const facts = await source.snapshot({ ...testContext(), sink });
    const meta = openSnapshotMeta(facts.meta);
    expect(meta).toMatchObject({
      walSegmentSize: 1024 * 1024,
      dataChecksums: true,
      architecture: process.arch,
      tablespaces: [{ oid: tablespaceOid, location: join(cluster.root, 'space') }],
      superuser: 'postgres',
      configFiles: [],
    });
    expect(meta.settings).toMatchObject({
      max_prepared_transactions: '5',
      max_connections: '100',
      autovacuum: 'off',
    });
    const label = sink.entries.get('backup_label')!.content.toString();
    expect(label).toContain('BACKUP METHOD: streamed');
    expect(label).toContain('LABEL: holdfast ledger');
    expect(sink.entries.get('tablespace_map')!.content.toString()).toContain(`${tablespaceOid} `);
    expect(sink.entries.get('global/pg_control')!.content.length).toBe(8192);
    const names = segmentNames(1, lsnOf(facts.from), lsnOf(facts.to), meta.walSegmentSize);
    const segments = [...sink.entries.keys()].filter((path) => /^pg_wal\/[0-9A-F]{24}$/.test(path));
    expect(segments).toEqual(expect.arrayContaining(names.map((name) => `pg_wal/${name}`)));
    let at = lsnOf(facts.from) & ~0xfffffn;
    for (const name of names) {
      const { content, meta: entry } = sink.entries.get(`pg_wal/${name}`)!;
      expect(content.length).toBe(1024 * 1024);
      expect(entry.mode).toBe(0o600);
      const own = readFileSync(join(cluster.data, 'pg_wal', name));
      const valid = Math.min(content.length, Number(lsnOf(facts.to) - at));
      expect(content.subarray(0, valid).equals(own.subarray(0, valid))).toBe(true);
      at += 0x100000n;
    }
    expect(facts.sourceFinished).toBeGreaterThanOrEqual(facts.sourceStarted);
    expect(Math.abs(facts.sourceFinished - Date.now())).toBeLessThan(10_000);
    expect(await cluster.sql('select count(*) from pg_replication_slots')).toBe('0');
  }, 60_000);

  it('has every segment of its log while the server is busy', async () => {
    await cluster.pgbench(['-i', '-q', '-s', '3']);
    const bench = cluster.spawn('pgbench', [
      ...[
        '-h',
        '127.0.0.1',
        '-p',
        String(cluster.port),
        '-U',
        'postgres',
        '-n',
        '-c',
        '4',
        '-T',
        '20',
        'postgres',
      ],
    ]);
    try {
      const sink = new MemorySink(10);
      const facts = await source.snapshot({ ...testContext(), sink });
      expect(lsnOf(facts.to) - lsnOf(facts.from)).toBeGreaterThan(0n);
      const names = segmentNames(1, lsnOf(facts.from), lsnOf(facts.to), 1024 * 1024);
      for (const name of names) expect(sink.entries.get(`pg_wal/${name}`)?.content.length).toBe(1024 * 1024);
    } finally {
      bench.kill('SIGTERM');
    }
  }, 60_000);

  it('brings damaged pages, and says so', async () => {
    await cluster.sql('create table torn as select i from generate_series(1, 1000) i; checkpoint');
    const path = await cluster.sql(`select pg_relation_filepath('torn')`);
    await cluster.stop();
    const { openSync, writeSync, closeSync } = await import('node:fs');
    const file = openSync(join(cluster.data, path), 'r+');
    writeSync(file, Buffer.from([0xff]), 0, 1, 5000);
    closeSync(file);
    await cluster.start();
    const sink = new MemorySink();
    const facts = await source.snapshot({ ...testContext(), sink });
    expect(facts.warnings).toHaveLength(1);
    expect(facts.warnings[0]).toMatch(/damaged pages/);
    expect(sink.entries.get(path)!.content[5000]).toBe(0xff);
    await cluster.sql('drop table torn');
  }, 60_000);

  it('ends at once when its log connection is cut', async () => {
    const sink = new MemorySink();
    let cut = false;
    sink.onWrite = () => {
      if (cut) return;
      cut = true;
      void cluster.sql(
        `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name like 'holdfast_tmp_%'`,
      );
    };
    const limited = openSource('ledger', 'postgres', { url: cluster.url, maxRate: 1, snapshot: 'remote' });
    const started = performance.now();
    await expect(limited.snapshot({ ...testContext(), sink })).rejects.toMatchObject({
      code: expect.stringMatching(/^(net\.unreachable|postgres\.not-ready)$/),
    });
    expect(performance.now() - started).toBeLessThan(8_000);
  }, 60_000);

  it('ends when it is aborted, and leaves no slot', async () => {
    const abort = new AbortController();
    const sink = new MemorySink();
    sink.onWrite = () => abort.abort(new Error('enough'));
    await expect(source.snapshot({ ...testContext(abort.signal), sink })).rejects.toThrow('enough');
    await expect.poll(() => cluster.sql('select count(*) from pg_replication_slots')).toBe('0');
  }, 30_000);
});
