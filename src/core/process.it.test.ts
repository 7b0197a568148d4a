import { describe, expect, it } from 'vitest';
import type { HoldfastError } from './errors.ts';
import { runProcess, startProcess } from './process.ts';
import { Secrets } from './redaction.ts';

const node = process.execPath;
const failure = (promise: Promise<unknown>): Promise<HoldfastError> =>
  promise.then(
    () => expect.fail('should have failed'),
    (error) => error,
  );

describe('runProcess', () => {
  it('passes arguments as they are and returns what was written', async () => {
    const result = await runProcess(node, ['-p', 'process.argv.slice(1)', '--', '$HOME; a "b"'], {
      deadlineMs: 9000,
    });
    expect(result.stdout.toString()).toContain(`'$HOME; a "b"'`);
    expect(result.status).toBe(0);
  });

  it('gives input', async () => {
    const result = await runProcess('cat', [], { deadlineMs: 9000, input: 'hello' });
    expect(result.stdout.toString()).toBe('hello');
  });

  it('names a program that is not there, and a working folder that is not there', async () => {
    const missing = await failure(runProcess('no-such-program-xyz', [], { deadlineMs: 9000 }));
    expect(missing).toMatchObject({ code: 'system.process-missing' });
    expect(missing.message).toBe('Could not run no-such-program-xyz: no such program was found.');
    const folder = await failure(runProcess('cat', [], { deadlineMs: 9000, cwd: '/no/such/folder' }));
    expect(folder.message).toContain('/no/such/folder does not exist');
  });

  it('reports the status with the last diagnostics, secrets hidden', async () => {
    const secrets = new Secrets();
    secrets.add('hunter22');
    const error = await failure(
      runProcess('sh', ['-c', 'echo "cannot log in with hunter22" >&2; exit 3'], {
        deadlineMs: 9000,
        secrets,
      }),
    );
    expect(error.code).toBe('system.process-failed');
    expect(error.message).toBe('sh ended with status 3. It wrote:\ncannot log in with ***');
    expect(error.details).toMatchObject({ status: 3, stderr: 'cannot log in with ***' });
  });

  it('keeps only the end of long diagnostics', async () => {
    const error = await failure(
      runProcess(node, ['-e', 'for(let i=0;i<20000;i++)console.error("line "+i);process.exitCode=1'], {
        deadlineMs: 9000,
      }),
    );
    expect(String(error.details.stderr)).toMatch(/line 19999$/);
    expect(String(error.details.stderr).length).toBeLessThanOrEqual(8192);
  });

  it('stops at the deadline, with SIGKILL when SIGTERM does not help', async () => {
    const begun = performance.now();
    const error = await failure(
      runProcess(node, ['-e', 'process.on("SIGTERM",()=>{});setInterval(()=>{},1000)'], {
        deadlineMs: 400,
        graceMs: 200,
      }),
    );
    expect(error.message).toContain('did not end within 0.4 s');
    expect(performance.now() - begun).toBeLessThan(5000);
  });

  it('stops when too much is written', async () => {
    const error = await failure(runProcess('yes', [], { deadlineMs: 9000, maxOutputBytes: 1000 }));
    expect(error.message).toContain('more than 1000 bytes');
  });

  it('rejects with the reason of the signal', async () => {
    const abort = new AbortController();
    const run = runProcess('sleep', ['30'], { deadlineMs: 60_000, signal: abort.signal });
    setTimeout(() => abort.abort(new Error('enough')), 50);
    expect((await failure(run)).message).toBe('enough');
  });

  it('does not wait for a descendant that holds the pipes', async () => {
    const begun = performance.now();
    const result = await runProcess('sh', ['-c', 'sleep 20 & echo $!'], { deadlineMs: 15_000 });
    process.kill(Number(result.stdout.toString()), 'SIGKILL');
    expect(performance.now() - begun).toBeLessThan(8000);
  });
});

describe('startProcess', () => {
  it('runs until stopped', async () => {
    const running = await startProcess('sleep', ['30'], {});
    expect(() => process.kill(running.pid, 0)).not.toThrow();
    await running.stop();
    expect(() => process.kill(running.pid, 0)).toThrow();
    expect((await failure(running.ended)).message).toContain('SIGTERM');
  });
});
