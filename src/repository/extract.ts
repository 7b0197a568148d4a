/** Extraction: entries of a snapshot onto a disk, packs read once each, in parallel, everything synced at the end. */
import { chown, mkdir, open, symlink, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import { damaged, whenMissing } from './codec.ts';
import type { Entry, ExtractOptions } from './contract.ts';
import type { Piece } from './extract-worker.ts';
import { type PackBinding, packName } from './pack.ts';
import type { PackPool } from './pack-pool.ts';

/** Pieces held for packs that are not complete yet; beyond it the fullest pack is worked on early. */
const PIECES_MOST = 200_000;
/** Files synced at once: measured against one after the other and against one syncfs (docs/benchmarks.md). */
const SYNCS_AT_ONCE = 16;

export interface ExtractParts {
  readonly store: ObjectStore;
  readonly packs: ReadonlyMap<string, PackBinding>;
  readonly pool: PackPool;
  readonly entries: AsyncIterable<Entry>;
  readonly options: ExtractOptions;
  readonly context: RunContext;
  readonly what: string;
}

/** Runs `work` over items, `width` at a time; the first failure ends it after those in flight. */
export async function inParallel<T>(
  items: AsyncIterable<T> | Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  for await (const item of items) {
    const task: Promise<void> = work(item)
      .catch((error: unknown) => {
        failure ??= { error };
      })
      .finally(() => running.delete(task));
    running.add(task);
    if (running.size >= width) await Promise.race(running);
    if (failure !== undefined) break;
  }
  await Promise.all(running);
  if (failure !== undefined) throw failure.error;
}

/** Groups pieces by pack; a pack is handed on when too much has gathered, or at the end. */
async function* jobs(
  parts: ExtractParts,
  placed: PlacedFile[],
): AsyncIterable<{ pack: string; pieces: Piece[] }> {
  const byPack = new Map<string, Piece[]>();
  let held = 0;
  const links = new Set<string>();
  for await (const entry of parts.entries) {
    parts.context.signal.throwIfAborted();
    const path = parts.options.place(entry);
    if (path === null) continue;
    refuseBelowLink(path, links, parts.what);
    if (entry.type === 'symlink') links.add(path);
    await create(entry, path, parts.options);
    placed.push({ path, entry: { ...entry, extents: [] } });
    let position = 0;
    for (const { length, pack, frame, offset } of entry.extents) {
      if (pack !== null) {
        const pieces = byPack.get(pack);
        const piece = { frame, offset, length, path, position };
        if (pieces === undefined) byPack.set(pack, [piece]);
        else pieces.push(piece);
        held++;
      }
      position += length;
    }
    while (held > PIECES_MOST) {
      const [pack, pieces] = [...byPack].reduce((a, b) => (b[1].length > a[1].length ? b : a));
      byPack.delete(pack);
      held -= pieces.length;
      yield { pack, pieces };
    }
  }
  for (const [pack, pieces] of byPack) yield { pack, pieces };
}

/** A listing that writes through its own link could reach any file of the host that restores. */
function refuseBelowLink(path: string, links: ReadonlySet<string>, what: string): void {
  if (links.size === 0) return;
  for (let parent = dirname(path); parent !== dirname(parent); parent = dirname(parent)) {
    if (links.has(parent)) throw damaged(what, `its listing puts ${path} behind the link ${parent}`);
  }
}

interface PlacedFile {
  readonly path: string;
  readonly entry: Entry;
}

async function create(entry: Entry, path: string, options: ExtractOptions): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    if (entry.type === 'directory') await mkdir(path, { recursive: true, mode: 0o700 });
    else if (entry.type === 'symlink') await symlink(entry.target ?? '', path);
    else {
      const handle = await open(path, 'wx', 0o600);
      await handle.close();
      if (entry.size > 0) await truncate(path, entry.size);
    }
    if (options.owner !== undefined && entry.type !== 'symlink') {
      await chown(path, options.owner.uid, options.owner.gid);
    }
  } catch (cause) {
    throw fileFailed(path, cause);
  }
}

function fileFailed(path: string, cause: unknown): HoldfastError {
  const code = systemErrorCode(cause);
  const why = cause instanceof Error ? cause.message : String(cause);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new HoldfastError('system.disk-full', `The disk is full: ${path} could not be written.`, {
      cause,
    });
  }
  return new HoldfastError('system.file-failed', `${path} could not be written: ${why}.`, { cause });
}

/** Extracts; every byte authenticated before it is written. On failure what was written stays, incomplete. */
export async function extract(parts: ExtractParts): Promise<{ files: number; bytes: number }> {
  const { pool, packs, store, context, options } = parts;
  const placed: PlacedFile[] = [];
  let bytes = 0;
  await inParallel(jobs(parts, placed), pool.width, async ({ pack: digest, pieces }) => {
    context.signal.throwIfAborted();
    const pack = packs.get(digest);
    if (pack === undefined)
      throw damaged(parts.what, `its listing uses the pack ${digest}, which it does not name`);
    const name = packName(digest);
    const content = await store.get(name, { signal: context.signal }).catch(whenMissing(name));
    pieces.sort((a, b) => a.frame - b.frame || a.offset - b.offset);
    const written = await pool.run({ pack, bytes: content, pieces });
    bytes += written;
  });
  await finish(placed, options, context.signal);
  return { files: placed.filter(({ entry }) => entry.type === 'file').length, bytes };
}

/** Modes, times and syncs last: a directory without write permission could not be filled. Children first. */
async function finish(
  placed: readonly PlacedFile[],
  options: ExtractOptions,
  signal: AbortSignal,
): Promise<void> {
  const sync = options.sync ?? true;
  const settle = async ({ path, entry }: PlacedFile) => {
    signal.throwIfAborted();
    if (entry.type === 'symlink') return;
    try {
      // Opened before its mode is set: an owner who may not read it could not sync it any more.
      const handle = await open(path, 'r');
      try {
        await handle.chmod(entry.mode);
        if (entry.mtime !== undefined) await handle.utimes(entry.mtime / 1000, entry.mtime / 1000);
        if (sync) await handle.sync();
      } finally {
        await handle.close();
      }
    } catch (cause) {
      throw fileFailed(path, cause);
    }
  };
  const isDirectory = ({ entry }: PlacedFile) => entry.type === 'directory';
  await inParallel(
    placed.filter((item) => !isDirectory(item)),
    SYNCS_AT_ONCE,
    settle,
  );
  if (sync) {
    const listed = new Set(placed.filter(isDirectory).map(({ path }) => path));
    const parents = new Set(placed.map(({ path }) => dirname(path)).filter((path) => !listed.has(path)));
    await inParallel(parents, SYNCS_AT_ONCE, syncPath);
  }
  await inParallel(placed.filter(isDirectory).reverse(), 1, settle);
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
