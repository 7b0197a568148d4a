import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunContext } from '../../core/context.ts';
import type { Step } from '../../core/progress.ts';
import { openSource } from '../open.ts';
import { parseControlFile } from './data-directory.ts';
import { MemorySink, testContext } from './memory-repository.test-helper.ts';
import { ask, one, Rescue } from './rescue.test-helper.ts';
import { ScratchCluster } from './scratch-cluster.test-helper.ts';

let cluster: ScratchCluster;
let other: ScratchCluster;

beforeAll(async () => {
  const options = { initdb: ['--data-checksums', '--wal-segsize=1'], conf: 'autovacuum = off' };
  cluster = await ScratchCluster.create(options);
  // Of another system identifier: those made alike are copies of one.
  other = await ScratchCluster.create({ initdb: ['--wal-segsize=2'], start: false });
  await cluster.sql('create table ledger as select i, md5(i::text) from generate_series(1, 20000) i');
  await cluster.sql('create role lean login replication');
}, 60_000);
afterAll(async () => {
  await cluster?.destroy();
  await other?.destroy();
});

function snapshot(settings: object, context: RunContext = testContext()) {
  const source = openSource('ledger', 'postgres', { url: cluster.url, ...settings });
  return source.snapshot({ ...context, sink: new MemorySink() });
}

describe('the data directory', () => {
  it('of another cluster is refused', async () => {
    for (const choice of ['auto', 'local']) {
      await expect(snapshot({ snapshot: choice, dataDirectory: other.data })).rejects.toMatchObject({
        code: 'postgres.data-directory',
        message: expect.stringContaining('it belongs to another cluster'),
      });
    }
  });

  it('that is not there, or no data directory, is refused when it was configured', async () => {
    for (const dataDirectory of ['/nowhere/at/all', '/etc']) {
      await expect(snapshot({ dataDirectory })).rejects.toMatchObject({ code: 'postgres.data-directory' });
    }
  });

  it('that an earlier start of the server left, or another server runs in, is refused', async () => {
    const copy = join(cluster.root, 'copy');
    execFileSync('cp', ['-a', cluster.data, copy]);
    const pid = join(copy, 'postmaster.pid');
    const lines = readFileSync(pid, 'utf8').split('\n');
    const rewrite = (index: number, value: string) => {
      const changed = lines.with(index, value).join('\n');
      const fd = openSync(pid, 'w');
      writeSync(fd, changed);
      closeSync(fd);
    };
    rewrite(2, String(Number(lines[2]) - 60));
    await expect(snapshot({ dataDirectory: copy })).rejects.toThrow(/was started at/);
    rewrite(3, '5431');
    await expect(snapshot({ dataDirectory: copy })).rejects.toThrow(/listens on port 5431/);
    rmSync(pid);
    await expect(snapshot({ dataDirectory: copy })).rejects.toMatchObject({
      code: 'postgres.data-directory',
    });
    rmSync(copy, { recursive: true });
  });

  it('without the right to ask is left alone: over the connection, or refused with the grant', async () => {
    const url = cluster.url.replace('postgres@', 'lean@');
    const context = testContext();
    // Whoever made the role as documented did nothing wrong: no step may be shown as failed.
    const failed: unknown[] = [];
    const step: Step = {
      step: () => step,
      advance: () => undefined,
      total: () => undefined,
      note: () => undefined,
      done: () => undefined,
      failed: (error) => failed.push(error),
    };
    await snapshot({ url }, { ...context, progress: step });
    expect(failed).toEqual([]);
    expect(context.lines.map(({ message }) => message).join()).toMatch(
      /over the connection: The role lean may not/,
    );
    await expect(snapshot({ url, snapshot: 'local' })).rejects.toMatchObject({
      code: 'postgres.local-denied',
      next: expect.stringContaining('GRANT pg_read_all_settings TO lean'),
    });
    await cluster.sql('grant pg_read_all_settings to lean');
    await expect(snapshot({ url, snapshot: 'local' })).rejects.toMatchObject({
      code: 'postgres.local-denied',
      next: expect.stringMatching(/^GRANT EXECUTE ON FUNCTION pg_catalog\.pg_(backup_start|start_backup)/),
    });
  }, 30_000);

  it.runIf(process.getuid?.() === 0)('that this user may not read is refused with what to do', () => {
    const module = new URL('./data-directory.ts', import.meta.url).href;
    const script = `const { openDataDirectory } = await import(${JSON.stringify(module)});
      const server = { systemId: '1', dataDirectory: null, port: 1, started: 1, segmentBlocks: 131072 };
      await openDataDirectory(${JSON.stringify(cluster.data)}, server, 150000, new AbortController().signal)
        .catch((error) => console.log(error.code + ' ' + error.message + ' ' + error.next));`;
    // From a folder that everybody may enter.
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
      uid: 65_534,
      gid: 65_534,
      cwd: '/tmp',
      encoding: 'utf8',
    });
    expect(out).toMatch(
      /^postgres\.data-directory .*may not read it \(EACCES\).*as the user that the server runs as/,
    );
  });
});

describe('pg_control', () => {
  it('proves itself, and a torn one does not', () => {
    const bytes = readFileSync(join(cluster.data, 'global', 'pg_control'));
    expect(parseControlFile(bytes)?.timeline).toBe(1);
    for (const at of [0, 40, 100, 290, 5000]) {
      const torn = Buffer.from(bytes);
      torn[at] = (torn[at] as number) ^ 1;
      expect(parseControlFile(torn), `byte ${at}`).toBeUndefined();
    }
    expect(parseControlFile(bytes.subarray(0, 100))).toBeUndefined();
  });
});

describe('a local snapshot', () => {
  let rescue: Rescue;
  beforeAll(async () => {
    rescue = await Rescue.begin();
  }, 60_000);
  afterAll(() => rescue?.end());

  const local = (settings: object = {}) =>
    openSource('ledger', 'postgres', {
      url: `postgresql://postgres@127.0.0.1:${rescue.source.port}/postgres`,
      snapshot: 'local',
      ...settings,
    });

  async function run(settings: object = {}, meanwhile: () => Promise<void> = async () => undefined) {
    const context = testContext();
    const sink = await (await rescue.repository.writer()).beginSnapshot(
      { source: 'ledger', kind: 'postgres' },
      context,
    );
    try {
      const [facts] = await Promise.all([local(settings).snapshot({ ...context, sink }), meanwhile()]);
      return { facts, done: await sink.publish(facts) };
    } finally {
      await sink.discard();
    }
  }

  async function sql(statement: string): Promise<string> {
    return String(await one(rescue.source.connection, statement));
  }

  it('of a copy of the directory is refused, even of one made a moment ago', async () => {
    const copy = join(rescue.root, 'twin');
    execFileSync('cp', ['-a', rescue.source.dataDir, copy]);
    await expect(run({ dataDirectory: copy })).rejects.toMatchObject({
      code: 'postgres.data-directory',
      message: expect.stringContaining('it is a copy'),
    });
    rmSync(copy, { recursive: true });
    expect(await sql('SELECT count(*) FROM pg_replication_slots')).toBe('0');
  }, 30_000);

  it('names damaged pages by file and block, and is taken all the same', async () => {
    await ask(rescue.source.connection, 'CREATE TABLE torn AS SELECT i FROM generate_series(1, 5000) i');
    await ask(rescue.source.connection, 'CHECKPOINT');
    const path = await sql("SELECT pg_relation_filepath('torn')");
    // Nobody writes the page again: the server keeps its own, sound one in memory.
    const fd = openSync(join(rescue.source.dataDir, path), 'r+');
    writeSync(fd, Buffer.from([0xff, 0xfe]), 0, 2, 3 * 8192 + 5000);
    closeSync(fd);
    const { facts, done } = await run();
    expect(facts.warnings).toHaveLength(1);
    expect(facts.warnings[0]).toContain(`${path} block 3.`);
    expect(done.header.id).toMatch(/Z-/);
    // Unchanged since, and still damaged: found again, though nothing of it is stored again.
    expect((await run()).facts.warnings).toHaveLength(1);
  }, 60_000);

  it('ends at once when the session that began it is lost', async () => {
    const started = performance.now();
    const cut = async () => {
      const find = `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND query = 'SELECT 1'`;
      await expect.poll(() => sql(find), { timeout: 20_000, interval: 100 }).toBe('1');
      await sql(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT 1' AND pid <> pg_backend_pid()`,
      );
    };
    await expect(run({ maxRate: 1 }, cut)).rejects.toMatchObject({
      code: expect.stringMatching(/^(net\.|postgres\.)/),
    });
    expect(performance.now() - started).toBeLessThan(20_000);
  }, 40_000);
});
