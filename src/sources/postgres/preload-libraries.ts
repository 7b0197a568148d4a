/** Which libraries an installation of PostgreSQL has: naming one that is missing keeps a server from starting. */
import { access } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import type { Binaries } from './binaries.ts';
import { librarySettings } from './recovery-settings.ts';
import { runProgram } from './server-user.ts';
import type { SnapshotMeta } from './snapshot-meta.ts';

/** Answers for the libraries that the source's preload settings name. */
export async function libraryCheck(
  binaries: Binaries,
  meta: SnapshotMeta,
): Promise<(library: string) => boolean> {
  const names = librarySettings.flatMap((setting) => (meta.settings[setting] ?? '').split(','));
  const folders = await libraryFolders(binaries);
  const there = new Set<string>();
  for (const name of names.map((text) => text.trim().replace(/^"(.*)"$/, '$1'))) {
    if (name !== '' && (await exists(name, folders))) there.add(name);
  }
  return (name) => there.has(name);
}

async function libraryFolders({ binDir }: Binaries): Promise<string[]> {
  const folders: string[] = [];
  const asked = await runProgram(join(binDir, 'pg_config'), ['--pkglibdir'], { deadlineMs: 10_000 });
  if (asked.status === 0) folders.push(asked.stdout.trim());
  // Installations without pg_config keep the usual order of folders.
  const root = dirname(binDir);
  folders.push(join(root, 'lib', 'postgresql'), join(root, 'lib'));
  return folders;
}

async function exists(name: string, folders: readonly string[]): Promise<boolean> {
  const plain = name.replace(/^\$libdir\//, '');
  const places = isAbsolute(plain) ? [plain] : folders.map((folder) => join(folder, plain));
  for (const place of places) {
    for (const ending of ['', '.so', '.dylib']) {
      const found = await access(`${place}${ending}`).then(
        () => true,
        () => false,
      );
      if (found && (ending !== '' || /\.(so|dylib)$/.test(place))) return true;
    }
  }
  return false;
}
