/** Every kind of target through `bin/holdfast`: transaction, named point, position, time, snapshot; and `mark`. */
import type { ChildProcess } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireComponent } from '../../scripts/rig.ts';
import {
  finished,
  queryAt,
  type Ran,
  type RunOptions,
  run,
  Scene,
  says,
  start,
} from './scene.test-helper.ts';

interface Row {
  readonly id: number;
  readonly xid: string;
  /** Before the transaction wrote, and behind its commit. */
  readonly before: string;
  readonly after: string;
}

describe.skipIf(!(await requireComponent('postgres-15')))('targets', () => {
  let scene: Scene;
  let options: RunOptions;
  let capturing: ChildProcess;
  let ended: Promise<Ran>;
  const rows: Row[] = [];
  let rolledBack = '';
  const running: number[] = [];

  async function insert(id: number): Promise<void> {
    const [before] = await scene.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
    const [made] = await scene.query<{ xid: string }>(
      `INSERT INTO entries VALUES (${id}) RETURNING pg_current_xact_id()::text AS xid`,
    );
    const [after] = await scene.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
    rows.push({ id, xid: made!.xid, before: before!.lsn, after: after!.lsn });
  }

  beforeAll(async () => {
    scene = await Scene.open();
    options = await scene.configure('app');
    await run(['init'], options);
    await scene.query('CREATE TABLE entries (id int PRIMARY KEY)');
    capturing = start(['capture', '--progress', 'plain', '--json'], options);
    ended = finished(capturing);
    await says(capturing, 'streaming');
    expect((await run(['backup', '--json'], options)).status).toBe(0);
    for (let id = 1; id <= 5; id += 1) await insert(id);
    await scene.query('BEGIN');
    const [aborted] = await scene.query<{ xid: string }>(
      'INSERT INTO entries VALUES (99) RETURNING pg_current_xact_id()::text AS xid',
    );
    await scene.query('ROLLBACK');
    rolledBack = aborted!.xid;
  }, 60_000);

  afterAll(async () => {
    for (const pid of running) process.kill(pid, 'SIGQUIT');
    capturing.kill('SIGKILL');
    await scene.close();
  });

  async function restored(name: string, ...target: string[]): Promise<number[]> {
    const to = join(options.cwd, name);
    const ran = await run(['restore', 'app', ...target, '--to', to, '--start', '--json'], options);
    expect(ran.status, ran.stdout + ran.stderr).toBe(0);
    const { server } = ran.json().result.restored;
    running.push(server.pid);
    const found = await queryAt<{ id: number }>(server.connection, 'SELECT id FROM entries ORDER BY id');
    return found.map(({ id }) => id);
  }

  test('mark waits until the name is durable, and refuses it the second time', async () => {
    const marked = await run(['mark', 'before the release', '--json'], options);
    expect(marked.status, marked.stdout).toBe(0);
    expect(marked.json().result).toEqual({
      name: 'before the release',
      sources: [
        {
          source: 'app',
          position: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/),
          time: expect.stringMatching(/^\d{4}-.*Z$/),
          durable: true,
          capturing: true,
          checked: true,
        },
      ],
    });
    const again = await run(['mark', 'before the release', '--json'], options);
    expect([again.status, again.json().error.code]).toEqual([4, 'recovery.name-taken']);
    // Another host, which knows no marks of its own, finds the name in the log.
    const elsewhere = { ...options, env: { HOLDFAST_STATE: join(options.cwd, 'other-state') } };
    const other = await run(['mark', 'before the release', 'app', '--json'], elsewhere);
    expect([other.status, other.json().error?.code]).toEqual([4, 'recovery.name-taken']);
    for (let id = 6; id <= 8; id += 1) await insert(id);
  }, 60_000);

  test('a point that PostgreSQL itself was asked for twice', async () => {
    await scene.query(`SELECT pg_create_restore_point('twice')`);
    await insert(9);
    await scene.query(`SELECT pg_create_restore_point('twice')`);
    await insert(10);
    await insert(11);
    const [last] = await scene.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
    await expect
      .poll(
        async () => {
          const [slot] = await scene.query<{ there: boolean }>(
            `SELECT restart_lsn >= '${last!.lsn}' AS there FROM pg_replication_slots`,
          );
          return slot?.there;
        },
        { timeout: 20_000 },
      )
      .toBe(true);
    const refused = await run(['restore', '--name', 'twice', '--dry-run', '--json'], options);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'recovery.ambiguous-target']);
    expect(refused.json().error.details.positions).toHaveLength(2);
    const [position] = refused.json().error.details.positions;
    expect(await restored('first-of-two', '--lsn', position)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  }, 60_000);

  test('a transaction, with and without it', async () => {
    const { xid } = rows[6]!;
    expect(await restored('with', '--xid', xid)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(await restored('without', '--xid', xid, '--exclusive')).toEqual([1, 2, 3, 4, 5, 6]);
    const dry = await run(['restore', '--xid', xid, '--dry-run', '--json'], options);
    expect(dry.json().result.plan.target).toEqual({ kind: 'transaction', id: xid, inclusive: true });
    // With an epoch, as pg_current_xact_id() would return it after four thousand million transactions.
    const later = String(BigInt(xid) + (1n << 32n));
    const same = await run(['restore', '--xid', later, '--dry-run', '--json'], options);
    expect(same.json().result.plan.stop).toEqual(dry.json().result.plan.stop);
  }, 60_000);

  test('a transaction that was rolled back, and a name that nobody gave, are refused', async () => {
    const aborted = await run(['restore', '--xid', rolledBack, '--dry-run', '--json'], options);
    expect([aborted.status, aborted.json().error.code]).toEqual([3, 'recovery.unknown-target']);
    const unknown = await run(['restore', '--name', 'Before the release', '--dry-run', '--json'], options);
    expect([unknown.status, unknown.json().error.code]).toEqual([3, 'recovery.unknown-target']);
    const vain = await run(['restore', '--name', 'twice', '--exclusive', '--json'], options);
    expect([vain.status, vain.json().error.code]).toEqual([2, 'command.usage']);
  });

  test('a named point', async () => {
    expect(await restored('named', '--name', 'before the release')).toEqual([1, 2, 3, 4, 5]);
  }, 60_000);

  test('a position, without and with the record that begins there', async () => {
    // Where one commit ends the next record begins: the insert itself, whose commit comes later.
    const { after } = rows[3]!;
    expect(await restored('before-it', '--lsn', after)).toEqual([1, 2, 3, 4]);
    const dry = await run(['restore', '--xid', rows[3]!.xid, '--exclusive', '--dry-run', '--json'], options);
    const commit = dry.json().result.plan.stop.before;
    expect(await restored('with-it', '--lsn', commit, '--inclusive')).toEqual([1, 2, 3, 4]);
    expect(await restored('without-it', '--lsn', commit)).toEqual([1, 2, 3]);
  }, 60_000);

  test('the exact time of a commit, with and without it', async () => {
    const dry = await run(['restore', '--xid', rows[2]!.xid, '--dry-run', '--json'], options);
    const { time } = dry.json().result.plan.lastCommit;
    expect(await restored('at', '--at', time)).toEqual([1, 2, 3]);
    expect(await restored('just-before', '--at', time, '--exclusive')).toEqual([1, 2]);
  }, 60_000);

  test('the end of the newest snapshot', async () => {
    expect(await restored('snapshot', '--snapshot', 'latest')).toEqual([]);
  }, 60_000);

  test('a transaction whose commit is the last record of the log', async () => {
    capturing.kill('SIGTERM');
    await ended;
    const last = await run(['restore', '--dry-run', '--json'], options);
    const { id } = last.json().result.plan.lastCommit;
    const ids = await restored('last', '--xid', id);
    expect(ids.slice(0, 11)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    const late = await run(['mark', 'nobody listens', '--json'], options);
    expect(late.json().result.sources[0]).toMatchObject({ durable: false, capturing: false });
  }, 60_000);

  test('without the right the grant is named', async () => {
    await scene.query('CREATE ROLE humble LOGIN');
    const humble = await scene.configure('humble');
    const file = join(humble.cwd, 'holdfast.yaml');
    await writeFile(
      file,
      (await readFile(file, 'utf8'))
        .replace('://postgres@', '://humble@')
        .replace('./repository', '../app/repository'),
    );
    const refused = await run(['mark', 'x', '--json'], humble);
    expect([refused.status, refused.json().error.code]).toEqual([4, 'postgres.denied']);
    const [grant] = /GRANT [^;]*;/.exec(refused.json().error.next)!;
    await scene.query(grant);
    expect((await run(['mark', 'x', '--json'], humble)).status).toBe(0);
  }, 60_000);
});
