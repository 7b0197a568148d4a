import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  adaptedConf,
  autoConf,
  cutOffSettings,
  filterLibraries,
  generatedConf,
  parseSettings,
  recoverySettings,
  releaseScript,
  shellQuote,
  tablespaceMap,
} from './recovery-settings.ts';
import { quoteSetting } from './server.ts';
import type { SnapshotMeta } from './snapshot-meta.ts';

const meta: SnapshotMeta = {
  version: 150018,
  systemId: '1',
  timeline: 1,
  startLsn: '0000000002000028',
  stopLsn: '0000000002000100',
  walSegmentSize: 2 ** 24,
  dataChecksums: true,
  architecture: 'x64',
  tablespaces: [],
  settings: {
    max_connections: '300',
    shared_buffers: '1048576',
    block_size: '8192',
    data_directory: '/live',
  },
  histories: {},
  configFiles: [],
  collations: {},
  superuser: 'postgres',
};
const libraries = {
  shared_preload_libraries: 'timescaledb',
  session_preload_libraries: '',
  local_preload_libraries: '',
};
const facts = { to: '/r', socketDir: '/r/s', port: 20001, meta, libraries, memory: 2 ** 32 };

describe('the settings of a restored server', () => {
  it('cut it off and fit it to this machine', () => {
    const settings = Object.fromEntries(cutOffSettings(facts));
    expect(settings).toMatchObject({
      archive_mode: 'off',
      synchronous_standby_names: '',
      max_logical_replication_workers: '0',
      primary_conninfo: '',
      listen_addresses: '127.0.0.1',
      max_connections: '300',
      shared_buffers: '262144',
      'timescaledb.max_background_workers': '0',
      archive_library: '',
      promote_trigger_file: '',
    });
    expect(settings).not.toHaveProperty('sync_replication_slots');
  });

  it.each([
    [13, ['archive_library', 'sync_replication_slots'], ['promote_trigger_file']],
    [18, ['promote_trigger_file'], ['archive_library', 'sync_replication_slots']],
  ])('name only what version %i knows', (major, absent, present) => {
    const names = [...cutOffSettings({ ...facts, meta: { ...meta, version: major * 10_000 } }).keys()];
    for (const name of absent) expect(names).not.toContain(name);
    for (const name of present) expect(names).toContain(name);
  });

  it('name the target last, behind the emptied others', () => {
    const settings = recoverySettings({ timeline: 3, beforeLsn: '0/5' }, '/a b%', ['recovery_target_time']);
    expect([...settings.keys()].at(-1)).toBe('recovery_target_lsn');
    expect(settings.get('recovery_target_time')).toBe('');
    expect(settings.get('recovery_target_timeline')).toBe('3');
    expect(settings.get('restore_command')).toBe(`sh '/a b%%/holdfast-restore/fetch-wal.sh' "%f" "%p"`);
  });

  it('keep the source’s own entries, but none that would act', () => {
    const original = `work_mem = '5MB'\narchive_mode = 'on'\nprimary_conninfo = 'host=x'\nrecovery_target_xid = '7'\n`;
    const text = autoConf(original, cutOffSettings(facts), undefined);
    const inForce = parseSettings(text);
    expect(inForce.get('work_mem')).toBe('5MB');
    expect(inForce.get('archive_mode')).toBe('off');
    expect(inForce.get('primary_conninfo')).toBe('');
    expect(inForce.has('recovery_target_xid')).toBe(false);
    const release = releaseScript(original, cutOffSettings(facts), new Map([['restore_command', 'x']]));
    expect(release).toContain(`ALTER SYSTEM SET "archive_mode" = 'on';`);
    expect(release).toContain('ALTER SYSTEM RESET "primary_conninfo";');
    expect(release).toContain('ALTER SYSTEM RESET timescaledb.max_background_workers;');
  });

  it('never lead to the source’s own data', () => {
    expect(generatedConf(meta)).not.toMatch(/\/live|block_size/);
    const conf = adaptedConf(`data_directory = '/live'\nmax_connections = 300\n`, '', meta, '/r');
    expect([...parseSettings(conf)]).toContainEqual(['data_directory', '/r']);
    expect(adaptedConf('max_connections = 300\nshared_buffers = 8GB\n', '', meta, '/r')).not.toContain(
      'Added',
    );
  });

  it('survive writing and reading', () => {
    fc.assert(
      fc.property(
        fc.string().filter((text) => !/[\n\r]/.test(text)),
        (value) => {
          expect(parseSettings(`a.b = ${quoteSetting(value)}`).get('a.b')).toBe(value);
        },
      ),
    );
  });
});

describe('preloaded libraries', () => {
  it('are kept when they are there and do nothing by themselves', () => {
    const result = filterLibraries(
      'pg_stat_statements, pg_cron, "$libdir/other"',
      (name) => name !== '$libdir/other',
    );
    expect(result).toEqual({ kept: 'pg_stat_statements', left: ['pg_cron', '$libdir/other'] });
    expect(filterLibraries('', undefined)).toEqual({ kept: '', left: [] });
  });
});

it('quotes for the shell', () => {
  expect(shellQuote('/a/b-c')).toBe('/a/b-c');
  expect(shellQuote(`/a b'c`)).toBe(`'/a b'\\''c'`);
});

it('writes a tablespace map as PostgreSQL reads it', () => {
  expect(tablespaceMap(new Map([['16384', '/a\\b c']]))).toBe('16384 /a\\\\b c\n');
});
