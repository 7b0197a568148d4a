/**
 * Starts PostgreSQL servers of our own: a restored one, the quickstart's, the tests'. Never a server that
 * belongs to somebody else.
 *
 * A scratch server listens on a free loopback port and on a Unix socket in a folder that only its owner can
 * enter; by default its own hba file lets in nobody but those who reach that socket.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { chown, lchown, mkdir, mkdtemp, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { connectScratch, type ScratchAddress, scratchUrl } from './scratch-connection.ts';
import { LogFollower, lastLines, readTail } from './server-log.ts';
import { runProgram, type ServerUser, serverEnvironment, serverUser } from './server-user.ts';

export type StopMode = 'smart' | 'fast' | 'immediate';

export interface InitOptions {
  /** Folder with `initdb` (see `findBinaries`). */
  readonly binDir: string;
  /** Absolute; absent or empty. */
  readonly dataDir: string;
  /** Who owns and runs it; default: ourselves, or as root the user that `serverUser` finds. */
  readonly user?: ServerUser | undefined;
  /** Name of the superuser. Default `postgres`. */
  readonly superuser?: string;
  /** Appended to postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
  /** More arguments of initdb, e.g. `--data-checksums`, `--wal-segsize=1`. */
  readonly args?: readonly string[];
  /** Flush to disk before it resolves. Default false: a scratch cluster can be made again. */
  readonly sync?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface StartOptions {
  readonly binDir: string;
  readonly dataDir: string;
  readonly user?: ServerUser | undefined;
  /** Role for `connection`. Default `postgres`. */
  readonly superuser?: string;
  /** Given on the server's command line: they win over every file, and whoever looks at the processes sees them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** postgresql.conf, when it is not in the data directory. */
  readonly configFile?: string;
  /**
   * `own` (default): free port, own socket folder, own hba and ident files, given on the command line.
   * Else the server's configuration files say all that, and this is what they say.
   */
  readonly access?: 'own' | { readonly socketDir: string; readonly port: number };
  /** With `own`: more lines of pg_hba.conf, before the ones that are always there. */
  readonly hba?: readonly string[];
  /** The server outlives this process. Default false: it ends with it. */
  readonly detached?: boolean;
  /** Where the server's log goes. Default: a file in the socket folder, gone with it. */
  readonly logFile?: string;
  /** Lines of the server's log as they come, at most a quarter of a second late. */
  readonly onLog?: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** Until it must accept connections, milliseconds. Default 60,000. */
  readonly deadlineMs?: number;
}

export interface ServerExit {
  readonly status: number | null;
  readonly signal: string | null;
}

/** A running server of ours. */
export interface ScratchServer {
  readonly binDir: string;
  readonly dataDir: string;
  readonly socketDir: string;
  readonly port: number;
  readonly pid: number;
  readonly user: ServerUser | undefined;
  /** As the superuser over the socket. */
  readonly connection: ScratchAddress;
  /** The same for libpq and for `pg`. */
  readonly url: string;
  readonly logFile: string;
  /** Resolves when the server's main process has ended, whoever ended it. */
  readonly exited: Promise<ServerExit>;
  /** Waits until it accepts connections. Rejects with `postgres.server-failed` when it ends or the deadline passes. */
  ready(options: { readonly signal?: AbortSignal | undefined; readonly deadlineMs: number }): Promise<void>;
  /** The last lines of its log, also after its end. */
  logTail(lines?: number): Promise<string[]>;
  /**
   * Stops it and waits; after a minute by a harder way, up to SIGKILL. Removes the socket folder if it is ours.
   * Idempotent.
   */
  stop(mode?: StopMode): Promise<void>;
  /** SIGKILL, as a crash would; waits for the end of the main process. The socket folder stays. */
  kill(): Promise<void>;
}

/** Makes an empty cluster (`initdb`) whose superuser needs no password. Throws `postgres.server-failed`. */
export async function initScratchCluster(options: InitOptions): Promise<void> {
  const user = options.user ?? (await serverUser());
  await mkdir(options.dataDir, { recursive: true, mode: 0o700 });
  if (user !== undefined) await chown(options.dataDir, user.uid, user.gid);
  const args = ['-D', options.dataDir, '-U', options.superuser ?? 'postgres', '--auth=trust', '-E', 'UTF8'];
  // The C locale is the only one that every machine and every build has.
  args.push('--locale=C', ...(options.sync === true ? [] : ['--no-sync']), ...(options.args ?? []));
  const result = await runProgram(join(options.binDir, 'initdb'), args, {
    user,
    signal: options.signal,
    deadlineMs: 120_000,
  });
  if (result.status !== 0) {
    const said = lastLines(result.stderr || result.stdout, 5).join(' ') || String(result.failure?.message);
    throw new HoldfastError(
      'postgres.server-failed',
      `A new PostgreSQL cluster could not be made in ${options.dataDir}: ${said}`,
      { cause: result.failure },
    );
  }
  const settings = Object.entries(options.settings ?? {});
  const lines = settings.map(([name, value]) => `${name} = ${quoteSetting(value)}\n`);
  await writeFile(join(options.dataDir, 'postgresql.conf'), lines.join(''), { flag: 'a' });
}

/** A value as configuration files of PostgreSQL write it. */
export function quoteSetting(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

/** Starts a server and waits until it accepts connections. Throws `postgres.server-failed` with its last words. */
export async function startServer(options: StartOptions): Promise<ScratchServer> {
  const deadline = performance.now() + (options.deadlineMs ?? 60_000);
  for (;;) {
    const server = await launchServer(options);
    try {
      await server.ready({ signal: options.signal, deadlineMs: Math.max(1, deadline - performance.now()) });
      return server;
    } catch (error) {
      const log = (await server.logTail(30)).join('\n');
      await server.stop('immediate');
      // Another process took the port between our look and the server's; or the children of a killed server
      // still hold its memory. Both pass.
      const passing =
        (options.access === undefined || options.access === 'own') &&
        /could not bind|could not create any TCP\/IP sockets|pre-existing shared memory block/.test(log);
      if (!passing || options.signal?.aborted || performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

/** Starts a server without waiting until it accepts connections (recovery may take long). */
export async function launchServer(options: StartOptions): Promise<ScratchServer> {
  options.signal?.throwIfAborted();
  const user = options.user ?? (await serverUser());
  await giveTo(options.dataDir, user);
  const access = await prepareAccess(options, user);
  const logFile = options.logFile ?? join(access.socketDir, 'server.log');
  const log = await open(logFile, 'a', 0o600);
  try {
    if (user !== undefined) await log.chown(user.uid, user.gid);
    const child = await spawnServer(options, user, access, log.fd);
    const exited = exitOf(child);
    return new RunningServer(options, { user, access, logFile, child, exited });
  } catch (error) {
    if (access.ours) await rm(access.socketDir, { recursive: true, force: true });
    throw error;
  } finally {
    await log.close();
  }
}

interface Access {
  readonly socketDir: string;
  readonly port: number;
  /** The socket folder is ours to remove. */
  readonly ours: boolean;
  readonly args: readonly string[];
}

async function prepareAccess(options: StartOptions, user: ServerUser | undefined): Promise<Access> {
  const given = options.access;
  if (given !== undefined && given !== 'own') return { ...given, ours: false, args: [] };
  // Not os.tmpdir(): a socket's path may have 107 bytes (macOS: 103), which its temporary folder can exceed.
  const socketDir = await mkdtemp('/tmp/holdfast-');
  await writeFile(join(socketDir, 'pg_hba.conf'), [...(options.hba ?? []), ...socketHba, ''].join('\n'));
  await writeFile(join(socketDir, 'pg_ident.conf'), '');
  if (user !== undefined) await giveTo(socketDir, user);
  const port = await freePort();
  const args = commandLine({
    port: String(port),
    listen_addresses: '127.0.0.1',
    unix_socket_directories: socketDir,
    hba_file: join(socketDir, 'pg_hba.conf'),
    ident_file: join(socketDir, 'pg_ident.conf'),
    external_pid_file: '',
  });
  return { socketDir, port, ours: true, args };
}

/** Lets in everybody who reaches the socket, whose folder is closed to all but its owner. */
export const socketHba: readonly string[] = ['local all all trust', 'local replication all trust'];

function commandLine(settings: Readonly<Record<string, string>>): string[] {
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

/** Below the range that systems hand out by themselves, so that an outgoing connection cannot take it meanwhile. */
const firstPort = 20_000;
const lastPort = 32_000;

/** A loopback TCP port that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort));
    if (await portIsFree(port)) return port;
  }
  throw new HoldfastError(
    'postgres.server-failed',
    `No free port was found between ${firstPort} and ${lastPort}.`,
    {
      next: 'See what listens there (`ss -ltn`) and end what is not needed.',
    },
  );
}

async function portIsFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen({ port, host: '127.0.0.1', exclusive: true });
    await once(server, 'listening');
    return true;
  } catch (error) {
    if (systemErrorCode(error) === 'EADDRINUSE' || systemErrorCode(error) === 'EACCES') return false;
    throw error;
  } finally {
    server.close();
  }
}

/** Gives a folder with all that is in it to the server's user, unless it is theirs. Links are not followed. */
async function giveTo(folder: string, user: ServerUser | undefined): Promise<void> {
  if (user === undefined || (await stat(folder)).uid === user.uid) return;
  for (const entry of await readdir(folder, { recursive: true })) {
    await lchown(join(folder, entry), user.uid, user.gid);
  }
  await lchown(folder, user.uid, user.gid);
}

async function spawnServer(
  options: StartOptions,
  user: ServerUser | undefined,
  access: Access,
  log: number,
): Promise<ChildProcess> {
  const program = join(options.binDir, 'postgres');
  const args = ['-D', options.dataDir, ...access.args, ...commandLine(options.settings ?? {})];
  if (options.configFile !== undefined) args.push('-c', `config_file=${options.configFile}`);
  const detached = options.detached === true;
  // Without this a server whose owner is killed would live on; where it cannot be had, a normal exit still ends it.
  const bound = !detached && (await canBindToParent()) ? ['setpriv', '--pdeathsig', 'QUIT', '--'] : [];
  const [file, ...rest] = [...bound, program, ...args] as [string, ...string[]];
  const child = spawn(file, rest, {
    // A group of its own: Ctrl-C on our terminal is for us to pass on, in order.
    detached: true,
    cwd: options.dataDir,
    env: serverEnvironment(),
    stdio: ['ignore', log, log],
    ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }),
  });
  try {
    await once(child, 'spawn');
  } catch (error) {
    throw new HoldfastError('postgres.server-failed', `The server could not be started: ${String(error)}.`, {
      cause: error,
      next: `Check that ${program} can be run and that ${options.dataDir} can be entered${user === undefined ? '' : ` by the user ${user.name}`}.`,
    });
  }
  // The server's life must not keep ours open: whoever wants to wait for it awaits `exited`.
  child.unref();
  if (!detached) endWithUs(child, access.ours ? access.socketDir : undefined);
  return child;
}

let bindable: Promise<boolean> | undefined;

function canBindToParent(): Promise<boolean> {
  bindable ??= runProgram('setpriv', ['--pdeathsig', 'QUIT', '--', 'true'], { deadlineMs: 10_000 }).then(
    ({ status }) => status === 0,
  );
  return bindable;
}

/** Servers that end with this process, and what they leave behind. One listener for all of them. */
const bound = new Map<ChildProcess, string | undefined>();

function endAll(): void {
  for (const [child, socketDir] of bound) {
    child.kill('SIGQUIT');
    if (socketDir !== undefined) rmSync(socketDir, { recursive: true, force: true });
  }
}

function endWithUs(child: ChildProcess, socketDir: string | undefined): void {
  if (bound.size === 0) process.once('exit', endAll);
  bound.set(child, socketDir);
  child.once('exit', () => {
    bound.delete(child);
    if (bound.size === 0) process.off('exit', endAll);
  });
}

function exitOf(child: ChildProcess): Promise<ServerExit> {
  return new Promise((resolve) => child.once('exit', (status, signal) => resolve({ status, signal })));
}

interface Parts {
  readonly user: ServerUser | undefined;
  readonly access: Access;
  readonly logFile: string;
  readonly child: ChildProcess;
  readonly exited: Promise<ServerExit>;
}

const stopSignals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const;
const stopDeadlineMs = 60_000;

class RunningServer implements ScratchServer {
  readonly binDir: string;
  readonly dataDir: string;
  readonly socketDir: string;
  readonly port: number;
  readonly pid: number;
  readonly user: ServerUser | undefined;
  readonly connection: ScratchAddress;
  readonly url: string;
  readonly logFile: string;
  readonly exited: Promise<ServerExit>;
  readonly #child: ChildProcess;
  readonly #ours: boolean;
  #ended: ServerExit | undefined;
  #lastWords: string[] | undefined;
  #follower: LogFollower | undefined;

  constructor(options: StartOptions, parts: Parts) {
    this.binDir = options.binDir;
    this.dataDir = options.dataDir;
    this.socketDir = parts.access.socketDir;
    this.port = parts.access.port;
    this.pid = parts.child.pid!;
    this.user = parts.user;
    this.connection = {
      host: this.socketDir,
      port: this.port,
      user: options.superuser ?? 'postgres',
      database: 'postgres',
    };
    this.url = scratchUrl(this.connection);
    this.logFile = parts.logFile;
    this.#child = parts.child;
    this.#ours = parts.access.ours;
    if (options.onLog !== undefined) this.#follower = new LogFollower(this.logFile, options.onLog);
    this.exited = parts.exited.then(async (exit) => {
      this.#ended = exit;
      await this.#follower?.end();
      return exit;
    });
  }

  async ready(options: {
    readonly signal?: AbortSignal | undefined;
    readonly deadlineMs: number;
  }): Promise<void> {
    const deadline = performance.now() + options.deadlineMs;
    let last: unknown;
    for (;;) {
      options.signal?.throwIfAborted();
      if (this.#ended !== undefined) throw await this.#failed('ended before it accepted connections');
      try {
        const client = await connectScratch(this.connection, { timeoutMs: 5000, signal: options.signal });
        await client.end();
        return;
      } catch (error) {
        if (options.signal?.aborted) throw options.signal.reason;
        if (!isStarting(error)) throw await this.#failed('refuses our own connection', error);
        last = error;
      }
      if (performance.now() > deadline) {
        throw await this.#failed(
          `accepted no connections within ${Math.round(options.deadlineMs / 1000)} s`,
          last,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async logTail(lines = 10): Promise<string[]> {
    if (this.#lastWords !== undefined) return this.#lastWords.slice(-lines);
    return readTail(this.logFile, lines);
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    const ladder = mode === 'immediate' ? ['SIGQUIT', 'SIGKILL'] : [stopSignals[mode], 'SIGQUIT', 'SIGKILL'];
    for (const signal of ladder as NodeJS.Signals[]) {
      if (this.#ended !== undefined) break;
      this.#child.kill(signal);
      if (await endedWithin(this.exited, stopDeadlineMs)) break;
    }
    if (!this.#ours) return;
    this.#lastWords ??= await readTail(this.logFile, 50);
    await rm(this.socketDir, { recursive: true, force: true });
  }

  async kill(): Promise<void> {
    if (this.#ended === undefined) this.#child.kill('SIGKILL');
    await this.exited;
  }

  async #failed(what: string, cause?: unknown): Promise<HoldfastError> {
    const tail = await this.logTail(8);
    const words = tail.length === 0 ? 'It logged nothing.' : `Its last words:\n  ${tail.join('\n  ')}`;
    const exit = this.#ended;
    const how = exit === undefined ? '' : ` (${exit.signal ?? `status ${exit.status}`})`;
    return new HoldfastError(
      'postgres.server-failed',
      `The PostgreSQL server in ${this.dataDir} ${what}${how}. ${words}`,
      { cause, details: { dataDir: this.dataDir, log: tail } },
    );
  }
}

/** The server is there but not ready, or not there yet. */
function isStarting(error: unknown): boolean {
  const code = systemErrorCode(error);
  return (
    ['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'EAGAIN', '57P03'].includes(code ?? '') ||
    // What `pg` says, without a code, when the server closes or does not answer during the handshake.
    (error instanceof Error && /timeout|terminated unexpectedly/i.test(error.message))
  );
}

async function endedWithin(exited: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([exited.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
