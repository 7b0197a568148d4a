import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { postgresBinaries, requireComponent } from '../../../scripts/rig.ts';
import { findBinaries } from './binaries.ts';
import { connectScratch } from './scratch-connection.ts';
import { initScratchCluster, type ScratchServer, startServer } from './server.ts';

const there = await requireComponent('postgres-15');

describe.skipIf(!there)('a scratch server', () => {
  let folder: string;
  let servers: ScratchServer[];

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/holdfast-test-');
    await chmod(folder, 0o755);
    servers = [];
  });
  afterEach(async () => {
    for (const server of servers) await server.stop('immediate');
    await rm(folder, { recursive: true, force: true });
  });

  async function cluster(name = 'data'): Promise<{ binDir: string; dataDir: string }> {
    const { binDir } = await postgresBinaries(15);
    const dataDir = join(folder, name);
    await initScratchCluster({ binDir, dataDir, settings: { shared_buffers: '8MB' } });
    return { binDir, dataDir };
  }

  async function ask(server: ScratchServer, sql: string): Promise<unknown[]> {
    const client = await connectScratch(server.connection, { timeoutMs: 5000 });
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  }

  it('starts, answers, stops, and leaves no socket folder behind', async () => {
    const lines: string[] = [];
    const server = await startServer({
      ...(await cluster()),
      settings: { work_mem: '5MB' },
      onLog: (line) => lines.push(line),
    });
    servers.push(server);
    expect(await ask(server, 'SHOW work_mem')).toEqual([{ work_mem: '5MB' }]);
    expect((await stat(server.socketDir)).mode & 0o777).toBe(0o700);
    await server.stop('fast');
    expect(await server.exited).toEqual({ status: 0, signal: null });
    await expect(stat(server.socketDir)).rejects.toThrow(/ENOENT/);
    expect(lines.join('\n')).toContain('ready to accept connections');
    expect((await server.logTail()).at(-1)).toContain('shut down');
    await server.stop();
  });

  it('lets nobody in over TCP', async () => {
    const server = await startServer(await cluster());
    servers.push(server);
    await expect(
      connectScratch({ ...server.connection, host: '127.0.0.1' }, { timeoutMs: 5000 }),
    ).rejects.toMatchObject({ code: '28000' });
  });

  it('comes up again after a crash', async () => {
    const data = await cluster();
    const first = await startServer(data);
    servers.push(first);
    await ask(first, 'CREATE TABLE t AS SELECT 1 AS a');
    await first.kill();
    expect((await first.exited).signal).toBe('SIGKILL');
    const second = await startServer(data);
    servers.push(second);
    expect(await ask(second, 'SELECT * FROM t')).toEqual([{ a: 1 }]);
  });

  it('says with the server’s own words why it does not start', async () => {
    await expect(
      startServer({ ...(await cluster()), settings: { shared_buffers: 'much' } }),
    ).rejects.toMatchObject({
      code: 'postgres.server-failed',
      message: expect.stringContaining('invalid value for parameter "shared_buffers"'),
    });
  });

  it('obeys the signal', async () => {
    const signal = AbortSignal.timeout(1);
    await expect(startServer({ ...(await cluster()), signal })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
  });

  it('ends with its owner, even when that is killed', async () => {
    const data = await cluster();
    const script = `
      import { startServer } from ${JSON.stringify(new URL('./server.ts', import.meta.url).href)};
      const server = await startServer(${JSON.stringify(data)});
      process.stdout.write(server.pid + ' ' + server.socketDir);
      setInterval(() => undefined, 1000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [said] = (await once(owner.stdout, 'data')) as [Buffer];
    const [pid, socketDir] = said.toString().split(' ') as [string, string];
    owner.kill('SIGKILL');
    await expect.poll(() => isAlive(Number(pid)), { timeout: 20_000 }).toBe(process.platform !== 'linux');
    await rm(socketDir, { recursive: true, force: true });
  });

  it('outlives its owner when detached', async () => {
    const data = await cluster();
    const script = `
      import { startServer } from ${JSON.stringify(new URL('./server.ts', import.meta.url).href)};
      const server = await startServer({ ...${JSON.stringify(data)}, detached: true });
      process.stdout.write(server.pid + ' ' + server.socketDir);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const said: Buffer[] = [];
    owner.stdout.on('data', (chunk: Buffer) => said.push(chunk));
    const [status] = await once(owner, 'close');
    expect(status).toBe(0);
    const [pid, socketDir] = Buffer.concat(said).toString().split(' ') as [string, string];
    expect(isAlive(Number(pid))).toBe(true);
    process.kill(Number(pid), 'SIGQUIT');
    await expect.poll(() => isAlive(Number(pid)), { timeout: 20_000 }).toBe(false);
    await rm(socketDir, { recursive: true, force: true });
  });

  it('is found by its version only', async () => {
    const found = await findBinaries(15);
    expect(found?.version).toMatch(/^15\./);
    expect(await findBinaries(9)).toBeUndefined();
  });
});

describe.skipIf(!(await requireComponent('postgres-18')))('programs from a package', () => {
  it('make and start a cluster', async () => {
    const folder = await mkdtemp('/tmp/holdfast-test-');
    await chmod(folder, 0o755);
    const { binDir } = await postgresBinaries(18);
    await initScratchCluster({ binDir, dataDir: join(folder, 'data') });
    const server = await startServer({ binDir, dataDir: join(folder, 'data') });
    try {
      const client = await connectScratch(server.connection, { timeoutMs: 5000 });
      const { rows } = await client.query('SHOW server_version_num');
      await client.end();
      expect(rows[0].server_version_num).toMatch(/^18/);
    } finally {
      await server.stop('immediate');
      await rm(folder, { recursive: true, force: true });
    }
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
