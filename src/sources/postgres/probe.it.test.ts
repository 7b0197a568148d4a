import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSource } from '../open.ts';
import type { SourceReport } from '../source.ts';
import { testContext } from './memory-repository.test-helper.ts';
import { ScratchCluster } from './scratch-cluster.test-helper.ts';

let cluster: ScratchCluster;
beforeAll(async () => {
  cluster = await ScratchCluster.create();
}, 60_000);
afterAll(() => cluster?.destroy());

const probe = (url = cluster.url, settings: object = {}): Promise<SourceReport> =>
  openSource('ledger', 'postgres', { url, ...settings }).probe(testContext());
const of = (report: SourceReport, name: string) => report.findings.find((finding) => finding.name === name);

describe('doctor, on a PostgreSQL server', () => {
  it('says what is well, and what it is', async () => {
    const report = await probe();
    expect(report).toMatchObject({
      reachable: true,
      version: expect.stringMatching(/^PostgreSQL 1[3-8]\.\d+/),
    });
    expect(report.identity).toBe(await cluster.sql('select system_identifier from pg_control_system()'));
    const ok = [
      'connection',
      'pooler',
      'clock',
      'replication',
      'standby',
      'wal-level',
      'wal-senders',
      'rights',
    ];
    for (const name of ok) expect(of(report, `postgres.${name}`), name).toMatchObject({ level: 'ok' });
    expect(of(report, 'postgres.fsync')).toMatchObject({ level: 'warning' });
    expect(of(report, 'postgres.slot')).toMatchObject({
      level: 'note',
      message: expect.stringContaining('holdfast_ledger'),
    });
    expect(report.findings.filter(({ level }) => level === 'problem')).toEqual([]);
    expect(await cluster.sql('select count(*) from pg_replication_slots')).toBe('0');
  });

  it('gives for each risk a remedy that the server accepts', async () => {
    for (const setting of [
      ...["max_slot_wal_keep_size = '64MB'", 'full_page_writes = off', "synchronous_standby_names = '*'"],
      ...['wal_sender_timeout = 0', 'synchronous_commit = local'],
    ]) {
      await cluster.sql(`alter system set ${setting}`);
    }
    await cluster.sql('select pg_reload_conf()');
    await cluster.sql(
      `set synchronous_commit = local; select pg_create_physical_replication_slot('holdfast_ledger', true)`,
    );
    await expect.poll(async () => of(await probe(), 'postgres.full-page-writes')?.level).toBe('warning');
    const report = await probe();
    expect(of(report, 'postgres.synchronous-standbys')).toMatchObject({ level: 'warning' });
    expect(of(report, 'postgres.slot')).toMatchObject({
      level: 'warning',
      message: expect.stringContaining('not in use'),
    });
    for (const { remedy } of report.findings) {
      for (const statement of (remedy ?? '').replace(/--.*/, '').split(';')) {
        if (/^\s*(ALTER SYSTEM|SELECT|GRANT)/.test(statement)) await cluster.sql(statement);
      }
    }
    await expect
      .poll(async () => of(await probe(), 'postgres.synchronous-standbys')?.level)
      .not.toBe('warning');
    const mended = await probe();
    for (const name of ['full-page-writes', 'wal-sender-timeout', 'fsync']) {
      expect(of(mended, `postgres.${name}`), name).toMatchObject({ level: 'ok' });
    }
  });

  it.each([
    ['FIRST 1 (standby1, "holdfast")', 'remote_apply', 'warning', true],
    ['ANY 1 (holdfast, standby1)', 'on', 'warning', false],
    ['FIRST 1 (holdfast2, standby1)', 'remote_apply', 'ok', false],
  ])(
    'tells of synchronous_standby_names %s with synchronous_commit %s',
    async (names, commit, level, applied) => {
      const finding = async () => of(await probe(), 'postgres.synchronous-standbys');
      try {
        // Before the server reads the names: from then on this test's own commits would wait for ever.
        await cluster.sql(`alter role postgres set synchronous_commit = ${commit}`);
        await cluster.sql(`alter system set synchronous_standby_names = '${names}'`);
        await cluster.sql('select pg_reload_conf()');
        await expect.poll(async () => (await finding())?.message).toContain(names);
        const found = await finding();
        expect(found?.level).toBe(level);
        expect(found?.message.includes('remote_apply')).toBe(applied);
        expect(found?.message.includes('commits wait until the repository has them')).toBe(
          level === 'warning',
        );
        expect(found?.remedy === undefined).toBe(level === 'ok');
      } finally {
        await cluster.sql('alter system reset synchronous_standby_names');
        await cluster.sql('select pg_reload_conf()');
        await cluster.sql('alter role postgres reset synchronous_commit');
      }
    },
  );

  it('names the grant for a role that may not replicate or see settings', async () => {
    await cluster.sql('create role plain login');
    const report = await probe(
      cluster.url.replace('postgres@', 'plain@').replace(/\/postgres$/, '/postgres'),
    );
    expect(report).toMatchObject({ reachable: true, identity: null });
    expect(of(report, 'postgres.replication')).toMatchObject({
      level: 'problem',
      remedy: expect.stringContaining('ALTER ROLE plain REPLICATION'),
    });
    expect(of(report, 'postgres.rights')).toMatchObject({
      level: 'warning',
      remedy: expect.stringContaining('GRANT pg_read_all_settings'),
    });
  });

  it('reports what cannot be reached as a finding', async () => {
    const report = await probe('postgres://nobody@127.0.0.1:1/none');
    expect(report).toMatchObject({ reachable: false, version: null, identity: null });
    expect(report.findings).toHaveLength(1);
    expect(report.findings[0]).toMatchObject({ name: 'postgres.connection', level: 'problem' });
    expect(report.findings[0]!.remedy).toBeTruthy();
  });
});
