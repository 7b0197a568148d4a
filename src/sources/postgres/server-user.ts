/** The unprivileged user that runs PostgreSQL when we are root, and programs run as that user. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';

/** PostgreSQL refuses to run as root. */
export interface ServerUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Users that may run a scratch server, best first: macOS calls its service user `_postgres`. */
const candidates = ['postgres', '_postgres', 'nobody'];

/**
 * The user that a server is started as, and that owns what is restored: `postgres` where there is one, else
 * `nobody`. Undefined when we are not root: then it is ourselves.
 */
export async function serverUser(): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  // The file is enough: a service user that only a directory server knows would be gone in a disaster.
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const name of candidates) {
    const fields = lines.find((line) => line[0] === name);
    if (fields === undefined) continue;
    const uid = Number(fields[2]);
    const gid = Number(fields[3]);
    if (uid > 0 && gid > 0) return { name, uid, gid };
  }
  return { name: 'nobody', uid: 65534, gid: 65534 };
}

export interface RunOptions {
  readonly user?: ServerUser | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds after which the program is killed. */
  readonly deadlineMs: number;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunResult {
  /** Null when it was killed or could not be started. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Why it could not be started or was killed. */
  readonly failure: Error | null;
}

/**
 * Runs a program by its argument vector, without a shell, and waits for its end. Rejects only when the signal
 * aborts (with its reason); everything else is in the result.
 */
export function runProgram(file: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const { user, signal, deadlineMs } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    execFile(
      file,
      [...args],
      {
        // The caller's folder may be closed to the server's user.
        cwd: options.cwd ?? '/',
        env: { ...serverEnvironment(), ...options.env },
        timeout: deadlineMs,
        killSignal: 'SIGKILL',
        maxBuffer: 4 * 1024 * 1024,
        ...(signal === undefined ? {} : { signal }),
        ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }),
      },
      (error, stdout, stderr) => {
        if (signal?.aborted) return reject(signal.reason);
        if (error === null) return resolve({ status: 0, stdout, stderr, failure: null });
        const status = typeof error.code === 'number' ? error.code : null;
        resolve({ status, stdout, stderr, failure: error });
      },
    );
  });
}

/**
 * The environment for PostgreSQL's programs: ours without the variables that would redirect them (PGDATA,
 * PGPORT, …) or give away secrets (PGPASSWORD, our own), in plain English, so that messages can be read.
 */
export function serverEnvironment(): Record<string, string> {
  const kept = ['PATH', 'TMPDIR', 'TZ', 'LANG', 'LC_ALL', 'LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH'];
  const env: Record<string, string> = {};
  for (const name of kept) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  env.LC_MESSAGES = 'C';
  return env;
}
