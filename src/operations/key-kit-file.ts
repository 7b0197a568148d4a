/** The key kit as a file: only for its owner, durable, and never in the place of another. */
import { open, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { KeyKit } from '../repository/repository.ts';

/** Asked before a repository is made, so that none is made whose kit cannot be kept. `place`: a file or a folder. */
export async function refuseUnwritable(place: string): Promise<void> {
  const folder = (await isFolder(place)) ? place : dirname(place);
  const probe = join(folder, `.holdfast-${process.pid}.tmp`);
  try {
    const handle = await open(probe, 'wx', 0o600);
    await handle.close();
    await unlink(probe);
  } catch (cause) {
    throw failed(place, cause);
  }
}

/** Writes the kit to `place`, a file or a folder that exists; durable when it resolves. Returns the path. */
export async function writeKit(place: string, kit: KeyKit): Promise<string> {
  const path = (await isFolder(place)) ? join(place, kit.fileName) : place;
  try {
    const handle = await open(path, 'wx', 0o600);
    try {
      await handle.writeFile(kit.text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await syncFolder(dirname(path));
  } catch (cause) {
    throw failed(path, cause);
  }
  return path;
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

function failed(path: string, cause: unknown): HoldfastError {
  const code = systemErrorCode(cause);
  const known: Readonly<Record<string, string>> = {
    EEXIST: 'a file of that name exists, and it is never overwritten',
    ENOENT: 'there is no such folder',
    EACCES: 'this user may not write there',
    EROFS: 'it is on a read-only disk',
    ENOSPC: 'the disk is full',
  };
  const why = known[code ?? ''] ?? String(cause);
  return new HoldfastError('command.key-kit', `The key kit cannot be written to ${path}: ${why}.`, {
    details: { path },
    cause,
  });
}
