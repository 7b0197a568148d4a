/** Who may write and read the folder of a local store: looked at, not guessed from a single trial. */
import { access, constants, lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../core/errors.ts';
import type { StoreRisk } from './store.ts';

/** What any other user of the host may do. */
const others = 0o007;
/** To `packs/ab/` and `logs/<source>/`; what lies deeper is made by one writer for itself. */
const depth = 2;

/**
 * Rejects with the system's error for the first folder in which this user may not make files: a single run by another
 * user leaves such ones among others. Else tells whether others may look in.
 */
export async function examineRights(root: string, signal: AbortSignal | undefined): Promise<StoreRisk[]> {
  const open = await examineFolder(root, depth, signal);
  const { mode } = await lstat(root);
  // Nobody else gets through a closed folder, whatever is inside.
  if ((mode & others) === 0 || open.length === 0) return [];
  const [first = root] = open;
  const more = open.length === 1 ? '' : `, and ${open.length - 1} more in it`;
  return [
    {
      message: `Every user of this host may look into the repository: ${first} has the mode ${await modeOf(first)}${more}. The contents are encrypted; names, times and sizes are not.`,
      remedy: `chmod -R o-rwx '${root}'   (Holdfast itself makes folders 0750 and files 0640)`,
    },
  ];
}

/** The paths that others may use, this folder first. */
async function examineFolder(
  path: string,
  deeper: number,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  signal?.throwIfAborted();
  await access(path, constants.W_OK | constants.X_OK);
  const open = (await isOpen(path)) ? [path] : [];
  // The many files of the deepest folders are not looked at one by one: the folder's own mode covers them.
  if (deeper === 0) return open;
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) open.push(...(await examineFolder(inner, deeper - 1, signal)));
    else if (entry.isFile() && (await isOpen(inner))) open.push(inner);
  }
  return open;
}

async function isOpen(path: string): Promise<boolean> {
  try {
    return ((await lstat(path)).mode & others) !== 0;
  } catch (error) {
    // Trial and unfinished files of others come and go.
    if (systemErrorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

async function modeOf(path: string): Promise<string> {
  return ((await lstat(path)).mode & 0o7777).toString(8).padStart(4, '0');
}
