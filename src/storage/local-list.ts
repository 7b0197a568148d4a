/** Walks a local store in the byte order of full names, one folder level in memory at a time. */
import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../core/errors.ts';
import { isObjectName, isSegment, reservedArea } from './name.ts';
import type { ObjectInfo } from './store.ts';

export interface LocalWalk {
  readonly root: string;
  readonly prefix: string;
  readonly after: string;
  readonly signal: AbortSignal | undefined;
  /** Called where something was not found; rejects when it is the store that is gone. */
  readonly whenMissing: () => Promise<void>;
}

/** How many files are asked for size and time at once; more than Node's file threads gains nothing. */
const statsAtOnce = 32;

/** The objects that `walk` asks for. Rejects with the system's errors. */
export async function* walkLocal(walk: LocalWalk): AsyncGenerator<ObjectInfo> {
  const folder = walk.prefix.slice(0, walk.prefix.lastIndexOf('/') + 1);
  // A prefix that no name can have finds nothing, and must not lead outside of the store.
  if (folder !== '' && !isObjectName(folder.slice(0, -1))) return;
  yield* walkFolder(walk, folder);
}

/** `folder` is '' for the root, or ends with `/`. */
async function* walkFolder(walk: LocalWalk, folder: string): AsyncGenerator<ObjectInfo> {
  const waiting: string[] = [];
  for (const entry of await entries(walk, folder)) {
    walk.signal?.throwIfAborted();
    if (entry.endsWith('/')) {
      yield* objects(walk, waiting.splice(0));
      yield* walkFolder(walk, entry);
    } else {
      waiting.push(entry);
      if (waiting.length === statsAtOnce) yield* objects(walk, waiting.splice(0));
    }
  }
  yield* objects(walk, waiting);
}

/** Full names in the folder that matter, sorted; sub-folders end with `/` because that is how their objects sort. */
async function entries(walk: LocalWalk, folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readFolder(walk, join(walk.root, folder))) {
    if (!isSegment(entry.name) || (folder === '' && entry.name === reservedArea)) continue;
    const isFolder = entry.isSymbolicLink()
      ? await leadsToFolder(join(walk.root, folder, entry.name))
      : entry.isDirectory();
    const name = `${folder}${entry.name}${isFolder ? '/' : ''}`;
    if (isFolder ? mayHold(walk, name) : name.startsWith(walk.prefix) && name > walk.after) found.push(name);
  }
  return found.sort((a, b) => (a < b ? -1 : 1));
}

function mayHold({ prefix, after }: LocalWalk, folder: string): boolean {
  if (!folder.startsWith(prefix) && !prefix.startsWith(folder)) return false;
  return folder > after || after.startsWith(folder);
}

async function readFolder(walk: LocalWalk, path: string): Promise<Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
    await walk.whenMissing();
    return [];
  }
}

async function leadsToFolder(path: string): Promise<boolean> {
  const found = await statIfThere(path);
  return found?.isDirectory() ?? false;
}

async function statIfThere(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function* objects(walk: LocalWalk, names: readonly string[]): AsyncGenerator<ObjectInfo> {
  const found = await Promise.all(names.map((name) => statIfThere(join(walk.root, name))));
  if (found.includes(undefined)) await walk.whenMissing();
  for (const [index, name] of names.entries()) {
    const file = found[index];
    if (file?.isFile()) yield { name, bytes: file.size, storedAt: Math.floor(file.mtimeMs) };
  }
}
