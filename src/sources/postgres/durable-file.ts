/** Small files of a restore: written whole or not at all, flushed, and owned by the server's user. */
import { chown, mkdir, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ServerUser } from './server-user.ts';

/** Replaces or creates `path` in one step; the file and its folder are fsynced when it resolves. Mode 0600. */
export async function writeDurably(
  path: string,
  content: string | Uint8Array,
  owner: ServerUser | undefined,
): Promise<void> {
  const temporary = `${path}.holdfast-new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(content);
    if (owner !== undefined) await file.chown(owner.uid, owner.gid);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

/** Makes the entries of a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Makes a folder, and those above it that are missing, for the server's user alone (mode 0700). */
export async function makeFolder(path: string, owner: ServerUser | undefined): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await mkdir(path, { recursive: true, mode: 0o700 });
  if (owner !== undefined) await chown(path, owner.uid, owner.gid);
  await syncFolder(dirname(path));
}
