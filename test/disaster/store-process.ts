/** Starts store-writer.ts, bare or under another program, and reads what it says. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const writer = fileURLToPath(new URL('./store-writer.ts', import.meta.url));

export interface WriterProcess {
  readonly child: ChildProcess;
  /** Complete lines said so far. */
  readonly lines: () => readonly string[];
  /** Resolves when a line starts so, or rejects at the process's end without one. */
  readonly said: (start: string) => Promise<void>;
  /** Resolves at the end, with all it said on standard error. */
  readonly ended: Promise<string>;
}

/** `under`: a program and its arguments that runs the writer (strace, a shell). */
export function startWriter(args: readonly string[], under: readonly string[] = []): WriterProcess {
  const [program = '', ...programArgs] = [...under, process.execPath, writer, ...args];
  // One file thread: strace counts calls by thread, and injects into the nth of each.
  const environment = {
    ...process.env,
    // Node's own writes into its cache of compiled code would count among the store's.
    NODE_DISABLE_COMPILE_CACHE: '1',
    UV_THREADPOOL_SIZE: under.length > 0 ? '1' : '4',
    UV_USE_IO_URING: '0',
  };
  const child = spawn(program, programArgs, { stdio: ['pipe', 'pipe', 'pipe'], env: environment });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const ended = once(child, 'close').then(() => errors);
  const lines = () => output.split('\n').slice(0, -1);
  const said = async (start: string) => {
    let over = false;
    void ended.then(() => {
      over = true;
    });
    while (!lines().some((line) => line.startsWith(start))) {
      if (over) throw new Error(`the writer ended without saying ${start}: ${errors}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  return { child, lines, said, ended };
}

/** Runs the writer to its end. */
export async function runWriter(
  args: readonly string[],
  under: readonly string[] = [],
): Promise<readonly string[]> {
  const writing = startWriter(args, under);
  const errors = await writing.ended;
  if (writing.lines().length === 0) throw new Error(`the writer said nothing: ${errors}`);
  return writing.lines().slice(1);
}

/** Says loudly why a test is skipped; for what not every machine can do. */
export function skipLoudly(why: string): true {
  process.stderr.write(`\n!!! SKIPPED: ${why}\n\n`);
  return true;
}
