/**
 * Reads ahead for `wal fetch`: while PostgreSQL replays one segment the next ones appear in a folder beside its log,
 * where the launcher takes them from by a rename. One process for each data directory; it ends by itself, and
 * takes what it made away with it.
 */
import { mkdir, open, readdir, readFile, rm, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { systemErrorCode } from '../core/errors.ts';
import type { RepositoryReader } from '../repository/contract.ts';
import { parseArchiveName, parseSegmentName, readControlFile, segmentName } from '../sources/archive.ts';
import { type FetchPlace, WalFetch } from './wal-fetch.ts';
import type { Workspace } from './workspace.ts';

/** Segments kept ready: half a second of replay at 16 MiB each. */
const segmentsAhead = 8;
const idleMs = 30_000;
const pauseMs = 20;
/** A segment that is not whole yet is looked for again so often. */
const refreshMs = 1_000;

const folderName = join('pg_wal', 'holdfast-ahead');

/** Resolves when nothing was asked for in a while, or at once where another such process is at work. */
export async function readAhead(
  workspace: Workspace,
  place: FetchPlace,
  first: string,
  context: RunContext,
): Promise<void> {
  const folder = join(place.cwd, folderName);
  const release = await takeFolder(folder);
  if (release === undefined) return;
  try {
    await new Ahead(workspace, place, folder, context).run(first);
  } finally {
    await release();
  }
}

class Ahead {
  readonly #workspace: Workspace;
  readonly #place: FetchPlace;
  readonly #folder: string;
  readonly #context: RunContext;
  readonly #shared: { reader?: Promise<RepositoryReader> } = {};
  #fetch: WalFetch | undefined;
  #refreshedAt = Number.NEGATIVE_INFINITY;

  constructor(workspace: Workspace, place: FetchPlace, folder: string, context: RunContext) {
    this.#workspace = workspace;
    this.#place = place;
    this.#folder = folder;
    this.#context = context;
  }

  async run(first: string): Promise<void> {
    const { clock, signal } = this.#context;
    const control = await readControlFile(join(this.#place.cwd, 'global', 'pg_control'));
    if (control === undefined) return;
    let wanted = first;
    let since = clock.monotonic();
    while (clock.monotonic() - since < idleMs) {
      signal.throwIfAborted();
      const now = await this.#wanted();
      if (now !== undefined && now !== wanted) {
        wanted = now;
        since = clock.monotonic();
        await this.#forget(wanted);
      }
      if (!(await this.#fillOne(wanted, control.segmentSize))) await clock.sleep(pauseMs, signal);
    }
  }

  /** What was taken last. */
  async #wanted(): Promise<string | undefined> {
    const text = await readFile(join(this.#folder, 'wanted'), 'latin1').catch(ifMissing);
    return text !== undefined && parseArchiveName(text)?.kind === 'segment' ? text : undefined;
  }

  /** Segments that PostgreSQL has passed, or of another timeline. */
  async #forget(wanted: string): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      const passed = name.length === 24 && (name.slice(0, 8) !== wanted.slice(0, 8) || name <= wanted);
      if (passed) await unlink(join(this.#folder, name)).catch(ifMissing);
    }
  }

  /** Makes the first segment after `wanted` that is not there; false when all are, or the log ends. */
  async #fillOne(wanted: string, size: number): Promise<boolean> {
    const { clock } = this.#context;
    const place = parseSegmentName(wanted, size);
    if (place === undefined) return false;
    for (let i = 1; i <= segmentsAhead; i += 1) {
      const name = segmentName(place.timeline, place.lsn + BigInt(i) * BigInt(size), size);
      const path = join(this.#folder, name);
      if ((await stat(path).catch(ifMissing)) !== undefined) continue;
      if (this.#fetch === undefined) {
        if (clock.monotonic() - this.#refreshedAt < refreshMs) return false;
        this.#refreshedAt = clock.monotonic();
        this.#fetch = await WalFetch.open(this.#workspace, this.#place, this.#context, this.#shared);
      }
      const { whole } = await this.#fetch.file(name, path, true);
      if (!whole) this.#fetch = undefined;
      return whole;
    }
    return false;
  }
}

/** Undefined while another process has it. What a killed one left is taken away. */
async function takeFolder(folder: string): Promise<(() => Promise<void>) | undefined> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const lock = join(folder, 'process');
  const owner = await readFile(lock, 'latin1').catch(ifMissing);
  if (owner !== undefined && isAlive(Number(owner))) return undefined;
  if (owner !== undefined) {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { mode: 0o700 });
  }
  try {
    const file = await open(lock, 'wx', 0o600);
    await file.writeFile(String(process.pid));
    await file.close();
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return undefined;
    throw error;
  }
  return () => rm(folder, { recursive: true, force: true });
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemErrorCode(error) !== 'ESRCH';
  }
}

function ifMissing(error: unknown): undefined {
  if (systemErrorCode(error) !== 'ENOENT') throw error;
  return undefined;
}
