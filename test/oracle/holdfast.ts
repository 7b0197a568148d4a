/** `bin/holdfast` as a person runs it: the only way in which the oracle touches the product. */
import { type ChildProcess, spawn } from 'node:child_process';
import { resolve } from 'node:path';

export const program = resolve(import.meta.dirname, '../../bin/holdfast');

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where the program is run. */
export interface Place {
  readonly cwd: string;
  /** A folder of programs (of PostgreSQL), looked at before those on PATH. */
  readonly programs: string;
}

/** A run of the program that may still go on. */
export class Run {
  readonly child: ChildProcess;
  readonly args: readonly string[];
  stdout = '';
  stderr = '';
  readonly ended: Promise<Ended>;

  constructor(args: readonly string[], { cwd, programs }: Place) {
    this.args = args;
    const path = `${programs}:${process.env.PATH ?? ''}`;
    const clean = { PATH: path, HOME: cwd, HOLDFAST_STATE: `${cwd}/state` };
    const child = spawn(program, [...args], { cwd, env: clean, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    child.stdout.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString();
    });
    this.ended = new Promise((done, failed) => {
      child.once('error', failed);
      child.once('close', (status, signal) =>
        done({ status, signal, stdout: this.stdout, stderr: this.stderr }),
      );
    });
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Waits until standard error holds `text`; rejects when the run ends before, or after `deadlineMs`. */
  async says(text: string | RegExp, deadlineMs = 60_000): Promise<void> {
    const until = performance.now() + deadlineMs;
    const heard = () => (typeof text === 'string' ? this.stderr.includes(text) : text.test(this.stderr));
    while (!heard()) {
      if (!this.running) throw new Error(`${this} ended before it said ${text}: ${this.stderr}`);
      if (performance.now() > until) throw new Error(`${this} did not say ${text}: ${this.stderr}`);
      await new Promise((wait) => setTimeout(wait, 50));
    }
  }

  async kill(signal: NodeJS.Signals): Promise<Ended> {
    this.child.kill(signal);
    return await this.ended;
  }

  toString(): string {
    return `holdfast ${this.args.join(' ')}`;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: documents of many shapes; what a check reads of one is its check.
export type Result = any;

/** Runs to the end, as JSON. Throws, with everything it said, when the status is another than `status`. */
export async function holdfast(args: readonly string[], place: Place, status = 0): Promise<Result> {
  const run = new Run([...args, '--json'], place);
  const ended = await run.ended;
  if (ended.status !== status)
    throw new Error(
      `${run} ended with ${ended.status ?? ended.signal} instead of ${status}: ${ended.stderr}${ended.stdout}`,
    );
  const document = JSON.parse(ended.stdout);
  return status === 0 || status === 5 ? (document.result ?? document.error) : document.error;
}
