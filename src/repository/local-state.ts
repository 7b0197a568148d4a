/**
 * What a host remembers (docs/03-format.md §11): pins, its signing key, the heads of what it wrote, the spool
 * of parts on their way, and locks. Losing it costs time, never data. Every write is atomic and fsynced.
 *
 *   <state>/<repository id>/pin.json                      id, address, admin key, newest roster seen
 *   <state>/<repository id>/writer.json                   signing seed (0600)
 *   <state>/<repository id>/<source>/{snapshot,log}-head.json
 *   <state>/<repository id>/<source>/spool/<n>            parts durable here, not yet acknowledged by the store
 *   <state>/<repository id>/<source>/<name>.lock
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { JsonObject } from './contract.ts';

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Atomically replaces `path`; durable when it resolves. */
export async function writeDurably(
  path: string,
  content: readonly Uint8Array[],
  mode = 0o600,
): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeAndSync(temporary, content, mode);
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    // What went wrong first is what matters; a leftover of this kind is never read.
    await rm(temporary, { force: true }).catch(() => undefined);
    throw stateFailed(path, error);
  }
}

async function writeAndSync(path: string, content: readonly Uint8Array[], mode: number): Promise<void> {
  const handle = await open(path, 'wx', mode);
  try {
    // writeFile writes to the end; a bare writev may stop early on a disk that is nearly full.
    for (const part of content) await handle.writeFile(part);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function stateFailed(path: string, cause: unknown): HoldfastError {
  const code = systemErrorCode(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new HoldfastError('system.disk-full', `The disk is full: ${path} could not be written.`, {
      cause,
    });
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return new HoldfastError('repository.state-unusable', `The local state ${path} cannot be used: ${why}.`, {
    cause,
  });
}

/** A named lock file of this host; freed by `release`, and by itself when its process is gone. */
export interface LocalLock {
  release(): Promise<void>;
}

/** When the process started, by the kernel: tells a reused process id from the lock's owner. Empty where unknown. */
async function processStart(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

async function ownerAlive(text: string): Promise<boolean> {
  const [pid = '', start = ''] = text.trim().split(' ');
  if (!/^\d+$/.test(pid)) return false;
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    if (systemErrorCode(error) === 'ESRCH') return false;
  }
  return start === '' || (await processStart(Number(pid))) === start;
}

/** State of one source in one repository. */
export class SourceState {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  get spoolDirectory(): string {
    return join(this.#directory, 'spool');
  }

  /** What `wal push` remembers. */
  get archiveDirectory(): string {
    return join(this.#directory, 'archive');
  }

  /** For the cache of change detection. */
  get cacheDirectory(): string {
    return join(this.#directory, 'cache');
  }

  /** For heads of snapshots that were checked once. */
  get headsFile(): string {
    return join(this.#directory, 'snapshots.heads');
  }

  /** A small JSON document, or undefined when there is none or it is unreadable (state may be lost, never trusted). */
  async read(name: 'snapshot-head' | 'log-head' | 'marks'): Promise<JsonObject | undefined> {
    return await readJson(join(this.#directory, `${name}.json`));
  }

  async write(name: 'snapshot-head' | 'log-head' | 'marks', value: JsonObject): Promise<void> {
    await writeDurably(join(this.#directory, `${name}.json`), [Buffer.from(JSON.stringify(value))]);
  }

  /** Throws `repository.busy` when another live process of this host holds it. Saves work; correctness needs no lock. */
  async lock(name: string, doing: string): Promise<LocalLock> {
    return await takeLock(join(this.#directory, `${name}.lock`), doing);
  }
}

async function takeLock(path: string, doing: string): Promise<LocalLock> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  } catch (error) {
    throw stateFailed(path, error);
  }
  const content = `${process.pid} ${await processStart(process.pid)}\n`;
  for (let attempt = 0; attempt < 5; attempt++) {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'wx', 0o600);
      await handle.writeFile(content);
      let held = true;
      return {
        release: async () => {
          // A second release must not take away the lock of whoever came next.
          if (held) await removeLock(path);
          held = false;
        },
      };
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw stateFailed(path, error);
    } finally {
      await handle?.close();
    }
    const owner = await readFile(path, 'latin1').catch(() => '');
    // An empty file is a lock being written this instant, or one whose owner died in that instant.
    if (owner === '') await new Promise((resolve) => setTimeout(resolve, 100));
    if (await ownerAlive(owner)) {
      const processId = Number(owner.split(' ')[0]);
      throw new HoldfastError(
        'repository.busy',
        `Another process of this host, ${processId}, is already busy with ${doing}.`,
        {
          details: { process: processId, lock: path },
          next: `Wait until it has ended, or stop it; see it with: ps -fp ${processId}`,
        },
      );
    }
    await removeLock(path);
  }
  throw new HoldfastError('repository.busy', `The lock for ${doing} changes hands too fast.`, {
    details: { lock: path },
  });
}

async function removeLock(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  });
}

async function readJson(path: string): Promise<JsonObject | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return undefined;
    throw stateFailed(path, error);
  }
  try {
    return JSON.parse(text) as JsonObject;
  } catch {
    return undefined;
  }
}

/** What a client pins on first use. */
export interface Pin {
  readonly repository: string;
  readonly address: string;
  readonly adminKey: string;
  readonly roster: number;
}

export class LocalState {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** Opens the state folder, creating it (0700) when needed. */
  static async open(directory: string): Promise<LocalState> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new HoldfastError('repository.state-unusable', `The state folder ${directory} cannot be made.`, {
        cause,
      });
    }
    return new LocalState(directory);
  }

  #repository(id: string): string {
    return join(this.directory, id);
  }

  source(repository: string, source: string): SourceState {
    return new SourceState(join(this.#repository(repository), source));
  }

  async readPin(repository: string): Promise<Pin | undefined> {
    return (await readJson(join(this.#repository(repository), 'pin.json'))) as Pin | undefined;
  }

  /** The pin of whichever repository was last used at this address. */
  async pinOfAddress(address: string): Promise<Pin | undefined> {
    for (const entry of await readdir(this.directory)) {
      const pin = await this.readPin(entry);
      if (pin?.address === address) return pin;
    }
    return undefined;
  }

  async writePin(pin: Pin): Promise<void> {
    await writeDurably(join(this.#repository(pin.repository), 'pin.json'), [
      Buffer.from(JSON.stringify(pin)),
    ]);
  }

  /** This host's signing seed for a repository, or undefined when there is none (yet, or any more). */
  async readSeed(repository: string): Promise<Uint8Array | undefined> {
    const value = await readJson(join(this.#repository(repository), 'writer.json'));
    const seed = typeof value?.seed === 'string' ? Buffer.from(value.seed, 'base64') : undefined;
    return seed?.length === 32 ? seed : undefined;
  }

  async writeSeed(repository: string, seed: Uint8Array): Promise<void> {
    const value = { seed: Buffer.from(seed).toString('base64') };
    await writeDurably(join(this.#repository(repository), 'writer.json'), [
      Buffer.from(JSON.stringify(value)),
    ]);
  }
}
