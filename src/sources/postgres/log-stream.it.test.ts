import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../core/clock.ts';
import { openSource } from '../open.ts';
import type { CaptureStatus } from '../source.ts';
import { type KeptPart, MemoryLog, testContext } from './memory-repository.test-helper.ts';
import { lsnOf, parseLsn, segmentName, segmentStart } from './position.ts';
import { ScratchCluster } from './scratch-cluster.test-helper.ts';

const segmentSize = 1024 * 1024;
let cluster: ScratchCluster;

beforeEach(async () => {
  cluster = await ScratchCluster.create({
    initdb: ['--wal-segsize=1'],
    conf: 'wal_keep_size = 512MB\nautovacuum = off\nwal_sender_timeout = 20s',
  });
  await cluster.sql('create table t (i int, note text)');
}, 60_000);
afterEach(async () => {
  await cluster?.destroy();
});

interface Running {
  readonly log: MemoryLog;
  readonly statuses: CaptureStatus[];
  readonly lines: ReturnType<typeof testContext>['lines'];
  readonly done: Promise<string | null>;
  durable(): bigint;
  stop(): Promise<string | null>;
}

function capture(log: MemoryLog, settings: object = {}, once = false, more: object = {}): Running {
  const abort = new AbortController();
  const context = { ...testContext(abort.signal), ...more };
  const statuses: CaptureStatus[] = [];
  const source = openSource('ledger', 'postgres', {
    url: cluster.url,
    partInterval: 0.1,
    heartbeat: 'off',
    ...settings,
  });
  const done = source.stream({ ...context, writer: log, once, onStatus: (status) => statuses.push(status) });
  done.catch(() => undefined);
  return {
    log,
    statuses,
    lines: context.lines,
    done,
    durable: () => (log.head === undefined ? 0n : lsnOf(log.head.to)),
    stop: () => {
      abort.abort(new Error('stopped by the test'));
      return done;
    },
  };
}

const flushed = async () => parseLsn(await cluster.sql('select pg_current_wal_flush_lsn()'));

async function caughtUp(running: Running): Promise<bigint> {
  const target = await flushed();
  await expect.poll(running.durable, { timeout: 20_000, interval: 20 }).toBeGreaterThanOrEqual(target);
  return target;
}

const gapWarnings = (running: Running) =>
  running.lines.filter(({ message }) => /gap in the log/.test(message));

/** The captured bytes of one stream against the server's own segment files. */
function compareWithServer(parts: readonly KeptPart[], timeline = 1): void {
  expect(parts.length).toBeGreaterThan(0);
  for (const [index, part] of parts.entries()) if (index > 0) expect(part.from).toBe(parts[index - 1]!.to);
  const start = lsnOf(parts[0]!.from);
  const bytes = Buffer.concat(parts.map((part) => part.data));
  let differing = 0;
  for (
    let at = segmentStart(start, segmentSize);
    at < start + BigInt(bytes.length);
    at += BigInt(segmentSize)
  ) {
    const own = readFileSync(join(cluster.data, 'pg_wal', segmentName(timeline, at, segmentSize)));
    const from = at < start ? Number(start - at) : 0;
    const offset = Number(at - start) + from;
    const ours = bytes.subarray(offset, offset + segmentSize - from);
    if (!own.subarray(from, from + ours.length).equals(ours)) differing += 1;
  }
  expect(differing).toBe(0);
}

describe('capture', () => {
  it('stores the log byte for byte, with its commits, while the server is busy', async () => {
    await cluster.pgbench(['-i', '-q', '-s', '1']);
    const running = capture(new MemoryLog());
    await cluster.pgbench(['-c', '4', '-T', '3', '-n']);
    await cluster.sql('insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i');
    await caughtUp(running);
    expect(await running.stop()).toBe(running.log.head!.to);
    const { parts } = running.log;
    expect(new Set(parts.map((part) => part.stream)).size).toBe(1);
    compareWithServer(parts);
    const xids = new Set(parts.flatMap((part) => part.commits.map((commit) => commit.id)));
    const committed = await cluster.sql('select count(distinct xmin::text) from pgbench_history');
    expect(xids.size).toBeGreaterThan(Number(committed));
    for (const part of parts) {
      for (const commit of part.commits) {
        expect(commit.position >= lsnOf(part.from) && commit.position < lsnOf(part.to)).toBe(true);
      }
    }
    const slot = await cluster.sql(
      `select restart_lsn from pg_replication_slots where slot_name = 'holdfast_ledger'`,
    );
    expect(parseLsn(slot)).toBe(running.durable());
    expect(running.statuses.at(-1)).toMatchObject({ state: 'stopped', parts: parts.length });
    expect(Math.max(...running.statuses.map(({ lagMs }) => lagMs ?? 0))).toBeLessThan(1_000);
  }, 60_000);

  it('goes on where it stopped, also after a crash of the server, without a gap', async () => {
    const first = capture(new MemoryLog());
    await cluster.sql('insert into t values (1)');
    await caughtUp(first);
    await first.stop();
    for (let round = 2; round < 6; round += 1) {
      await cluster.sql(`insert into t select ${round} from generate_series(1, 5000)`);
      if (round === 3) await cluster.sql('select pg_switch_wal()');
      const running = capture(new MemoryLog(first.log));
      first.log.head = running.log.head;
      if (round === 4) {
        await cluster.stop('immediate');
        await cluster.start();
      }
      await caughtUp(running);
      await running.stop();
      first.log.head = running.log.head;
      expect(gapWarnings(running)).toEqual([]);
    }
    expect(new Set(first.log.parts.map((part) => part.stream)).size).toBe(1);
    compareWithServer(first.log.parts);
  }, 60_000);

  it('resumes right after a switch and at once when asked for one round', async () => {
    const first = capture(new MemoryLog(), {}, true);
    await first.done;
    await cluster.sql('insert into t values (1); select pg_switch_wal()');
    const second = capture(new MemoryLog(first.log), {}, true);
    expect(lsnOf((await second.done)!)).toBeGreaterThanOrEqual(await flushed());
    const third = capture(new MemoryLog(second.log), {}, true);
    await third.done;
    await cluster.sql('insert into t values (2)');
    const fourth = capture(new MemoryLog(third.log), {}, true);
    await fourth.done;
    expect(gapWarnings(fourth)).toEqual([]);
    expect(new Set(fourth.log.parts.map((part) => part.stream)).size).toBe(1);
    compareWithServer(fourth.log.parts);
  }, 60_000);

  it('notices an older data directory that was put back', async () => {
    const old = join(cluster.root, 'old');
    const first = capture(new MemoryLog());
    await caughtUp(first);
    await first.stop();
    await cluster.stop();
    execFileSync('cp', ['-a', cluster.data, old]);
    await cluster.start();
    const second = capture(new MemoryLog(first.log));
    await cluster.sql('insert into t select 1 from generate_series(1, 1000)');
    await caughtUp(second);
    await second.stop();
    await cluster.stop();
    rmSync(cluster.data, { recursive: true });
    execFileSync('cp', ['-a', old, cluster.data]);
    await cluster.start();
    // First the server is behind what was captured; then it has other log at the same place.
    for (const rows of [0, 5000]) {
      if (rows > 0) await cluster.sql(`insert into t select 2 from generate_series(1, ${rows})`);
      const running = capture(new MemoryLog(second.log));
      const streams = running.log.parts.at(-1)!.stream;
      await expect.poll(() => gapWarnings(running).length, { timeout: 10_000 }).toBe(1);
      await caughtUp(running);
      await running.stop();
      expect(gapWarnings(running)).toHaveLength(1);
      expect(gapWarnings(running)[0]!.message).toMatch(/older state/);
      const fresh = running.log.parts.filter((part) => part.stream > streams);
      compareWithServer(fresh);
      second.log.parts.splice(second.log.parts.length - fresh.length);
    }
  }, 90_000);

  it('tells a lost slot, goes on without a gap where the log is still there, and with one where it is not', async () => {
    const first = capture(new MemoryLog());
    await caughtUp(first);
    await first.stop();
    await cluster.sql(`select pg_drop_replication_slot('holdfast_ledger')`);
    await cluster.sql('insert into t values (1)');
    const second = capture(new MemoryLog(first.log));
    await caughtUp(second);
    await second.stop();
    expect(second.lines.some(({ message }) => /slot holdfast_ledger is gone/.test(message))).toBe(true);
    expect(gapWarnings(second)).toEqual([]);
    await cluster.sql(`select pg_drop_replication_slot('holdfast_ledger')`);
    await cluster.sql('alter system set wal_keep_size = 0');
    await cluster.sql('select pg_reload_conf()');
    for (let i = 0; i < 4; i += 1) {
      await cluster.sql('insert into t select 1 from generate_series(1, 20000)');
      await cluster.sql('select pg_switch_wal(); checkpoint');
    }
    const third = capture(new MemoryLog(second.log));
    await caughtUp(third);
    await third.stop();
    expect(gapWarnings(third)).toHaveLength(1);
    expect(gapWarnings(third)[0]!.message).toMatch(/new snapshot/);
    expect(new Set(third.log.parts.map((part) => part.stream)).size).toBe(2);
  }, 60_000);

  it('refuses another cluster, a standby slot name in use by others, and a wrong password at once', async () => {
    const log = new MemoryLog();
    log.head = {
      ...{ stream: 's', sequence: 0, digest: '', meta: {} },
      lineage: '7300000000000000001/1',
      to: '0000000001000000',
    };
    await expect(capture(log).done).rejects.toMatchObject({ code: 'postgres.other-cluster' });
    await cluster.sql(`create role plain login; alter role plain noreplication`);
    const url = cluster.url.replace('postgres@', 'plain@');
    await expect(capture(new MemoryLog(), { url }).done).rejects.toMatchObject({
      code: 'postgres.no-replication-right',
    });
    await cluster.sql(`select pg_create_physical_replication_slot('other')`);
  }, 60_000);

  it('acknowledges nothing while the store hangs, and lets the server stop', async () => {
    const log = new MemoryLog();
    const running = capture(log);
    await caughtUp(running);
    const before = running.durable();
    log.beforeAppend = (signal) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    await cluster.sql('insert into t select 1 from generate_series(1, 1000)');
    await expect.poll(() => running.statuses.at(-1)?.state, { timeout: 10_000 }).toBe('waiting-for-store');
    const slot = await cluster.sql(`select restart_lsn from pg_replication_slots`);
    expect(parseLsn(slot)).toBe(before);
    const took = await cluster.stop('fast', 40);
    expect(took).toBeLessThan(15_000);
    await running.stop();
    await cluster.start();
    const again = capture(new MemoryLog(running.log));
    await caughtUp(again);
    await again.stop();
    compareWithServer(again.log.parts);
  }, 90_000);

  it('does not hold up a server that stops while the store answers', async () => {
    const running = capture(new MemoryLog(), { partInterval: 30 });
    await expect.poll(() => running.statuses.at(-1)?.written, { timeout: 10_000 }).toBeTruthy();
    await cluster.sql('insert into t select 1 from generate_series(1, 1000)');
    const took = await cluster.stop('fast', 40);
    expect(took).toBeLessThan(5_000);
    await cluster.start();
    await cluster.sql('insert into t values (9)');
    await expect.poll(() => running.statuses.at(-1)?.state, { timeout: 15_000 }).toBe('streaming');
    await running.stop();
    expect(gapWarnings(running)).toEqual([]);
    // What the keepalive of the stopping server had put at once is all of it.
    compareWithServer(running.log.parts);
    expect(running.durable()).toBeGreaterThan(0n);
  }, 60_000);

  it('keeps memory bounded and loses nothing when the store is slower than the server', async () => {
    const log = new MemoryLog();
    log.beforeAppend = () => new Promise((resolve) => setTimeout(resolve, 300));
    const running = capture(log, { partSize: 1 });
    for (let i = 0; i < 3; i += 1) {
      await cluster.sql(`select pg_logical_emit_message(true, 'x', repeat('y', 9000000))`);
    }
    await caughtUp(running);
    await running.stop();
    compareWithServer(log.parts);
    const commits = log.parts.flatMap((part) => part.commits);
    expect(commits.length).toBeGreaterThanOrEqual(3);
  }, 60_000);

  it('resumes inside a record that is longer than a part', async () => {
    const log = new MemoryLog();
    const once = capture(log, { partSize: 1 }, true);
    await once.done;
    const known = log.parts.length;
    const running = capture(new MemoryLog(log), { partSize: 1 });
    running.log.beforeAppend = (signal) =>
      running.log.parts.length < known + 4
        ? Promise.resolve()
        : new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    await cluster.sql(`select pg_logical_emit_message(true, 'x', repeat('y', 15000000))`);
    await expect.poll(() => running.log.parts.length, { timeout: 10_000 }).toBe(known + 4);
    await running.stop();
    const head = running.log.head!;
    expect(head.meta.recordEnd).not.toBe(head.to);
    const again = capture(new MemoryLog(running.log), { partSize: 1 });
    await caughtUp(again);
    await again.stop();
    expect(gapWarnings(again)).toEqual([]);
    expect(new Set(log.parts.map((part) => part.stream)).size).toBe(1);
    compareWithServer(log.parts);
    expect(log.parts.at(-1)!.commits.length).toBeGreaterThanOrEqual(1);
  }, 60_000);

  it('knows no lag in time while the server is ahead of what it received', async () => {
    const first = capture(new MemoryLog(), {}, true);
    await first.done;
    await cluster.sql(`select pg_logical_emit_message(true, 'x', repeat('y', 30000000))`);
    const log = new MemoryLog(first.log);
    log.beforeAppend = () => new Promise((resolve) => setTimeout(resolve, 300));
    const running = capture(log, { partSize: 1 });
    await caughtUp(running);
    const far = running.statuses.filter(({ backlogBytes }) => backlogBytes > 15_000_000);
    expect(far.length).toBeGreaterThan(0);
    expect(new Set(far.map(({ lagMs }) => lagMs))).toEqual(new Set([null]));
    await expect.poll(() => running.statuses.at(-1)?.lagMs, { timeout: 5_000 }).toBe(0);
    await running.stop();
  }, 60_000);

  it('never says that it streams while another capture has the slot, says why every minute, and gives up', async () => {
    const first = capture(new MemoryLog());
    await caughtUp(first);
    // Minutes pass as seconds.
    const clock = { ...systemClock, monotonic: () => systemClock.monotonic() * 20 };
    const second = capture(new MemoryLog(), {}, false, { clock });
    await expect(second.done).rejects.toMatchObject({ code: 'postgres.slot-in-use' });
    expect(new Set(second.statuses.map(({ state }) => state))).toEqual(new Set(['connecting', 'stopped']));
    const warned = second.lines.filter(({ level }) => level === 'warn');
    expect(warned).toHaveLength(2);
    for (const { message } of warned) expect(message).toContain('holdfast_ledger');
    expect(first.statuses.at(-1)?.state).toBe('streaming');
    await first.stop();
  }, 60_000);

  it('beats when nothing is committed', async () => {
    const running = capture(new MemoryLog(), { heartbeat: 1 });
    await caughtUp(running);
    const commits = () => running.log.parts.reduce((sum, part) => sum + part.commits.length, 0);
    const before = commits();
    await expect.poll(commits, { timeout: 6_000 }).toBeGreaterThan(before + 1);
    await running.stop();
  }, 30_000);

  it('follows a promoted server to its new timeline', async () => {
    const first = capture(new MemoryLog());
    await cluster.sql('insert into t values (1)');
    await caughtUp(first);
    await first.stop();
    // An archive recovery to the end makes a new timeline, as a failover does.
    await cluster.stop();
    cluster.configure(`restore_command = 'false'`);
    writeFileSync(join(cluster.data, 'recovery.signal'), '');
    cluster.own(join(cluster.data, 'recovery.signal'));
    await cluster.start();
    await expect.poll(() => cluster.sql('select pg_is_in_recovery()'), { timeout: 20_000 }).toBe('f');
    await cluster.sql('insert into t values (2)');
    const second = capture(new MemoryLog(first.log));
    await caughtUp(second);
    await second.stop();
    expect(gapWarnings(second)).toEqual([]);
    const { parts } = second.log;
    const system = parts[0]!.lineage.split('/')[0];
    const next = parts.filter((part) => part.lineage === `${system}/2`);
    const before = parts.filter((part) => part.lineage === `${system}/1`);
    expect(next.length).toBeGreaterThan(0);
    expect(next[0]!.from).toBe(before.at(-1)!.to);
    expect(next[0]!.ancestors).toEqual([{ lineage: `${system}/1`, position: next[0]!.from }]);
    expect(Object.keys(next[0]!.meta.histories as object)).toEqual(['00000002.history']);
    expect(before.at(-1)!.ancestors).toEqual([]);
    compareWithServer(next, 2);
    const third = capture(new MemoryLog(second.log));
    await cluster.sql('insert into t values (3)');
    await caughtUp(third);
    await third.stop();
    expect(gapWarnings(third)).toEqual([]);
    compareWithServer(
      third.log.parts.filter((part) => part.lineage.endsWith('/2')),
      2,
    );
  }, 60_000);
});
