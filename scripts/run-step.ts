/** One program run by a script: its output kept, its time taken. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export const root = join(import.meta.dirname, '..');

export interface StepResult {
  readonly name: string;
  readonly ok: boolean;
  readonly output: string;
  readonly ms: number;
}

/** Runs a program in the checkout. Never rejects: what cannot be started has failed, and says why. */
export function runStep(name: string, command: string, args: readonly string[]): Promise<StepResult> {
  const begun = performance.now();
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const end = (ok: boolean, more = '') =>
      resolve({
        name,
        ok,
        output: Buffer.concat(chunks).toString('utf8') + more,
        ms: performance.now() - begun,
      });
    const child = spawn(command, [...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.on('error', (error) => end(false, `${command}: ${error.message}\n`));
    child.on('close', (status) => end(status === 0));
  });
}

/** Shows a result as one line, and what was written where it failed. */
export function report({ name, ok, output, ms }: StepResult): void {
  console.log(`${ok ? '✔' : '✖'} ${name.padEnd(28)} ${(ms / 1000).toFixed(1)} s`);
  if (!ok) console.log(output.replace(/^/gm, '    '));
}
