/** Programs run by argument vector (never through a shell), with deadlines, and their diagnostics kept. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import type { Readable, Writable } from 'node:stream';
import { HoldfastError, systemErrorCode } from './errors.ts';
import { Secrets } from './redaction.ts';

export interface ProcessOptions {
  /** Ends the program (SIGTERM, then SIGKILL) when aborted; the run then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The most that the program may take, in ms. Without it only `signal` and `stop` end the program. */
  readonly deadlineMs?: number;
  /** From SIGTERM to SIGKILL, in ms. Default 5000. */
  readonly graceMs?: number;
  readonly cwd?: string;
  /** The whole environment. Default: this process's. */
  readonly env?: NodeJS.ProcessEnv;
  /** Run as another user and group (as root only); supplementary groups are dropped. */
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** Written to standard input, which is then closed. Default: nothing, closed at once. */
  readonly input?: string | Uint8Array;
  /** The most of standard output that is kept, in bytes; more is an error. Default 1 MiB. */
  readonly maxOutputBytes?: number;
  /** Statuses that count as success. Default `[0]`. */
  readonly okStatuses?: readonly number[];
  /** Leave standard output out of errors: it holds a secret. */
  readonly hideOutput?: boolean;
  /** Values that are hidden in errors. */
  readonly secrets?: Secrets;
}

export interface ProcessResult {
  readonly status: number;
  readonly stdout: Buffer;
  /** The last 8 KiB, secrets hidden. */
  readonly stderr: string;
  readonly ms: number;
}

export interface RunningProcess {
  readonly pid: number;
  /** Resolves when the program ended as expected; else rejects as `runProcess` does. Never unhandled. */
  readonly ended: Promise<ProcessResult>;
  /** The last lines written to standard error so far, secrets hidden. */
  diagnostics(): string;
  /** Sends `first` (default SIGTERM), after the grace SIGKILL; resolves when the program is gone. Never throws. */
  stop(first?: NodeJS.Signals): Promise<void>;
}

const defaults = { graceMs: 5000, maxOutputBytes: 1024 * 1024, tailBytes: 8 * 1024 };

/**
 * Runs a program to its end and returns what it wrote.
 * @throws `system.process-missing` when it cannot be started; `system.process-failed` for a status other than
 * expected, a signal, too much output or the deadline, with the last lines of its diagnostics; the reason of
 * `signal` when that was aborted.
 */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions & { readonly deadlineMs: number },
): Promise<ProcessResult> {
  return (await startProcess(command, args, options)).ended;
}

/** Starts a program and resolves once it runs. Options and errors as for `runProcess`. */
export async function startProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<RunningProcess> {
  options.signal?.throwIfAborted();
  const child = spawn(command, [...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    shell: false,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    ...(options.gid === undefined ? {} : { gid: options.gid }),
  });
  await spawned(child, command, options);
  return supervise(child, command, options);
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

async function spawned(child: Child, command: string, options: ProcessOptions): Promise<void> {
  const failure = await new Promise<unknown>((resolve) => {
    child.once('spawn', () => resolve(null));
    child.once('error', resolve);
  });
  if (failure === null) return;
  // Node says ENOENT of the program when it is the working folder that is missing.
  const cwd = options.cwd;
  const cwdMissing =
    cwd !== undefined &&
    (await stat(cwd).then(
      (s) => !s.isDirectory(),
      () => true,
    ));
  const why = cwdMissing ? `its working folder ${cwd} does not exist` : startFailure(failure);
  throw new HoldfastError('system.process-missing', `Could not run ${command}: ${why}.`, {
    details: { command, reason: systemErrorCode(failure) ?? 'unknown' },
    cause: failure,
  });
}

function startFailure(failure: unknown): string {
  const code = systemErrorCode(failure);
  if (code === 'ENOENT') return 'no such program was found';
  if (code === 'EACCES') return 'this user may not run it';
  if (code === 'EPERM') return 'this user may not run it as that user';
  if (code === 'E2BIG') return 'its arguments and environment are too long';
  return failure instanceof Error ? failure.message : String(failure);
}

function supervise(child: Child, command: string, options: ProcessOptions): RunningProcess {
  const started = performance.now();
  const secrets = options.secrets ?? new Secrets();
  const stdout = collect(child.stdout, options.maxOutputBytes ?? defaults.maxOutputBytes, 'head');
  const stderr = collect(child.stderr, defaults.tailBytes, 'tail');
  const diagnostics = () => secrets.redact(stderr.bytes().toString('utf8')).trim();
  // A program that ends without reading its input closes the pipe; its status tells the story.
  child.stdin.on('error', () => child.stdin.destroy());
  child.stdin.end(options.input ?? '');

  const gone = finished(child);
  let stopping: Promise<void> | undefined;
  const stop = (first: NodeJS.Signals = 'SIGTERM') => {
    stopping ??= endChild(child, gone, first, options.graceMs ?? defaults.graceMs);
    return stopping;
  };
  let cause: 'aborted' | 'deadline' | 'output' | null = null;
  const end = (why: NonNullable<typeof cause>) => {
    cause ??= why;
    void stop();
  };
  const abort = () => end('aborted');
  options.signal?.addEventListener('abort', abort, { once: true });
  if (options.signal?.aborted) abort();
  const deadline =
    options.deadlineMs === undefined ? undefined : setTimeout(() => end('deadline'), options.deadlineMs);
  stdout.onFull(() => end('output'));

  const ended = gone.then(({ status, signal }): ProcessResult => {
    clearTimeout(deadline);
    options.signal?.removeEventListener('abort', abort);
    if (cause === 'aborted') throw options.signal?.reason;
    const ms = Math.round(performance.now() - started);
    if (cause === null && status !== null && (options.okStatuses ?? [0]).includes(status)) {
      return { status, stdout: stdout.bytes(), stderr: diagnostics(), ms };
    }
    const how = outcome(cause, status, signal, options);
    const said =
      diagnostics() || (options.hideOutput ? '' : secrets.redact(lastLines(stdout.bytes())).trim());
    const text = said === '' ? 'It wrote nothing.' : `It wrote:\n${said}`;
    throw new HoldfastError('system.process-failed', `${command} ${how}. ${text}`, {
      details: { command, status, signal, ms, stderr: said },
    });
  });
  // Whoever only stops the program need not look at how it ended.
  ended.catch(() => undefined);
  return { pid: child.pid ?? 0, ended, diagnostics, stop };
}

function outcome(
  cause: 'deadline' | 'output' | null,
  status: number | null,
  signal: NodeJS.Signals | null,
  options: ProcessOptions,
): string {
  if (cause === 'deadline') return `did not end within ${(options.deadlineMs ?? 0) / 1000} s and was stopped`;
  if (cause === 'output') {
    return `wrote more than ${options.maxOutputBytes ?? defaults.maxOutputBytes} bytes and was stopped`;
  }
  return signal === null ? `ended with status ${status}` : `was ended by ${signal}`;
}

function lastLines(output: Buffer): string {
  return output.subarray(-defaults.tailBytes).toString('utf8');
}

interface Ending {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Resolves when the program is gone and its pipes are read, or a second after where a descendant holds them open. */
function finished(child: Child): Promise<Ending> {
  return new Promise((resolve) => {
    let late: NodeJS.Timeout | undefined;
    child.once('exit', (status, signal) => {
      // A server that the program left behind (pg_ctl start) inherits its pipes and would keep us waiting for ever.
      late = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        resolve({ status, signal });
      }, 1000);
    });
    child.once('close', (status, signal) => {
      clearTimeout(late);
      resolve({ status, signal });
    });
  });
}

async function endChild(child: Child, gone: Promise<Ending>, first: NodeJS.Signals, graceMs: number) {
  child.kill(first);
  const harder = setTimeout(() => child.kill('SIGKILL'), graceMs);
  await gone;
  clearTimeout(harder);
}

/** Keeps the first or the last `limit` bytes of a stream, reading on either way so that the writer never blocks. */
function collect(stream: Readable, limit: number, keep: 'head' | 'tail') {
  let chunks: Buffer[] = [];
  let size = 0;
  let full: (() => void) | undefined;
  stream.on('data', (chunk: Buffer) => {
    if (keep === 'head' && size + chunk.length > limit) {
      chunks.push(chunk.subarray(0, limit - size));
      size = limit;
      full?.();
      return;
    }
    chunks.push(chunk);
    size += chunk.length;
    if (keep === 'tail' && size > 2 * limit) {
      chunks = [Buffer.concat(chunks).subarray(-limit)];
      size = limit;
    }
  });
  // Reading ends with the program; how it ended is told by its status.
  stream.on('error', () => stream.destroy());
  return {
    bytes: () => (keep === 'tail' ? Buffer.concat(chunks).subarray(-limit) : Buffer.concat(chunks)),
    onFull: (listener: () => void) => {
      full = listener;
    },
  };
}
