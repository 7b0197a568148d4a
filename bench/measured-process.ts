/** Programs run under a watch: wall time, CPU seconds and peak memory of all their processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { endedChildrenCpu, treeCpu, treeMemory } from './process-tree.ts';

const memorySampleMs = 100;
const keptOutput = 1 << 20;

export interface Measured {
  readonly ms: number;
  readonly cpuSeconds: number;
  readonly peakPssMib: number;
  readonly peakRssMib: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface MeasureOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Each line of standard error as it comes. */
  readonly onLine?: (line: string) => void;
  /** A status other than 0 and an end by our signal are no failure. */
  readonly anyStatus?: boolean;
  /** Sample memory. Default true; off where some milliseconds count. */
  readonly memory?: boolean;
}

/** A program that runs beside others until it is stopped. */
export class MeasuredProcess {
  readonly pid: number;
  /** Rejects when it ends badly. */
  readonly ended: Promise<Measured>;
  readonly #child: ChildProcess;

  constructor(command: string, args: readonly string[], options: MeasureOptions = {}) {
    const started = performance.now();
    const cpuBefore = endedChildrenCpu();
    this.#child = spawn(command, [...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: options.cwd ?? '/',
      env: { ...process.env, ...options.env },
    });
    const { stdout, stderr } = this.#collect(options);
    const memory = options.memory === false ? null : new MemoryWatch(() => this.#child.pid);
    this.pid = this.#child.pid ?? 0;
    this.ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      // The clock stops when the program has ended, not when its pipes are read.
      let ms = 0;
      this.#child.once('exit', () => {
        ms = performance.now() - started;
      });
      this.#child.once('close', (status, signal) => {
        memory?.end();
        if (status !== 0 && options.anyStatus !== true) {
          const words = stderr().trim().slice(-2000);
          reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? status}:\n${words}`));
          return;
        }
        resolve({
          ms,
          cpuSeconds: endedChildrenCpu() - cpuBefore,
          peakPssMib: memory?.peakPssMib ?? 0,
          peakRssMib: memory?.peakRssMib ?? 0,
          stdout: stdout(),
          stderr: stderr(),
        });
      });
    });
    this.ended.catch(() => undefined);
  }

  /** CPU seconds so far. */
  async cpuSeconds(): Promise<number> {
    return await treeCpu(this.pid);
  }

  async stop(signal: NodeJS.Signals): Promise<Measured> {
    this.#child.kill(signal);
    return await this.ended;
  }

  #collect(options: MeasureOptions) {
    const kept = { stdout: '', stderr: '' };
    let rest = '';
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      kept.stdout = (kept.stdout + text).slice(-keptOutput);
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      kept.stderr = (kept.stderr + text).slice(-keptOutput);
      if (options.onLine === undefined) return;
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) options.onLine(line);
    });
    return { stdout: () => kept.stdout, stderr: () => kept.stderr };
  }
}

/**
 * Runs a program to its end. `cpuSeconds` counts every child of this process that ends meanwhile, so that
 * short-lived grandchildren are not lost: run nothing else beside it where that figure matters.
 */
export async function measure(
  command: string,
  args: readonly string[],
  options: MeasureOptions = {},
): Promise<Measured> {
  return await new MeasuredProcess(command, args, options).ended;
}

/** A pipeline of the shell, failing when any member fails. */
export async function measureShell(script: string, args: readonly string[]): Promise<Measured> {
  return await measure('bash', ['-o', 'pipefail', '-ec', script, 'bench', ...args]);
}

class MemoryWatch {
  peakPssMib = 0;
  peakRssMib = 0;
  #ended = false;

  constructor(pid: () => number | undefined) {
    void this.#watch(pid);
  }

  end(): void {
    this.#ended = true;
  }

  async #watch(pid: () => number | undefined): Promise<void> {
    while (!this.#ended) {
      const root = pid();
      if (root !== undefined) {
        const { pssMib, rssMib } = await treeMemory(root);
        this.peakPssMib = Math.max(this.peakPssMib, pssMib);
        this.peakRssMib = Math.max(this.peakRssMib, rssMib);
      }
      await new Promise((resolve) => setTimeout(resolve, memorySampleMs));
    }
  }
}
