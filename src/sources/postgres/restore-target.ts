/** The folder that is restored into: fit for it, marked while it is unfinished, cleared by nobody but its owner. */
import { constants, type Dirent, type StatsFs } from 'node:fs';
import { access, readdir, rename, rm, statfs } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { makeFolder, syncFolder, writeDurably } from './durable-file.ts';
import { runProgram, type ServerUser } from './server-user.ts';
import type { SnapshotTablespace } from './snapshot-meta.ts';

/** A file that people see; what stops PostgreSQL are the missing pg_control and the unreadable settings. */
export const markerName = 'RESTORE-UNFINISHED.txt';

const markerText = `This folder is an unfinished restore by Holdfast.
It is not a usable database: no server can be started from it. It can be deleted.
The repository that it came from is not affected. Run the restore again into a new folder.
`;

/** Not a setting: PostgreSQL refuses to start and prints this line's name. */
const blockedConf = 'holdfast.this_restore_is_unfinished__see_RESTORE_UNFINISHED_txt\n';

/** Where tablespaces go: beside the data directory, because PostgreSQL backs up what is inside it twice. */
export function tablespaceFolder(to: string): string {
  return `${to}.tablespaces`;
}

/**
 * A folder for each tablespace of the snapshot, by OID: the one that was given for its OID or for its folder on
 * the source, else one beside the data directory. Throws `recovery.unknown-tablespace` for what the snapshot lacks.
 */
export function tablespacePlaces(
  tablespaces: readonly SnapshotTablespace[],
  to: string,
  given: ReadonlyMap<string, string> = new Map(),
): Map<string, string> {
  const places = new Map<string, string>();
  const left = new Set(given.keys());
  for (const { oid, location } of tablespaces) {
    const name = [oid, location].find((key) => given.has(key));
    if (name !== undefined) left.delete(name);
    places.set(oid, name === undefined ? join(tablespaceFolder(to), oid) : given.get(name)!);
  }
  const [unknown] = left;
  if (unknown !== undefined) {
    const known = tablespaces.map(({ oid, location }) => `${oid} (${location})`).join(', ');
    throw new HoldfastError(
      'recovery.unknown-tablespace',
      `The snapshot has no tablespace ${unknown}; it has ${known === '' ? 'none' : known}.`,
      { details: { tablespace: unknown, known: tablespaces.map(({ oid }) => oid) } },
    );
  }
  if (new Set(places.values()).size < places.size) {
    throw unusable('Two tablespaces cannot go into one folder.', 'Give each a folder of its own.');
  }
  return places;
}

export interface TargetNeeds {
  readonly to: string;
  /** Folders of tablespaces by OID. */
  readonly places: ReadonlyMap<string, string>;
  /** What will be written at most at one time. */
  readonly bytes: number;
}

/**
 * Refuses a target that must not or cannot be used, before anything is written. Throws
 * `recovery.target-not-empty` or `recovery.target-unusable`.
 */
export async function checkTarget(needs: TargetNeeds): Promise<void> {
  const { to } = needs;
  if (!isAbsolute(to)) throw unusable(`The folder to restore into, ${to}, is not an absolute path.`);
  if (/[\n\r]/.test(to)) throw unusable('The path of the folder to restore into has a line break.');
  await refuseContent(to);
  for (const place of needs.places.values()) {
    if (!isAbsolute(place)) throw unusable(`The folder of a tablespace, ${place}, is not an absolute path.`);
    if (place === to || place.startsWith(`${to}/`)) {
      throw unusable(
        `The folder of a tablespace, ${place}, lies inside of ${to}: PostgreSQL would back it up twice.`,
      );
    }
    await refuseContent(place);
  }
  for (const folder of [to, ...needs.places.values()]) await refuseClosed(folder);
  const free = await freeBytes(to);
  const needed = needs.bytes + reserveBytes;
  if (free < needed) {
    throw unusable(
      `${to} has room for ${mebibytes(free)}, and the restore needs ${mebibytes(needed)}.`,
      `Make room, or give a folder on a larger disk with \`--to\`. See the room with \`df -h ${dirname(to)}\`.`,
    );
  }
}

/** The server writes its own log and its next segments, too. */
const reserveBytes = 64 * 1024 * 1024;

async function refuseContent(folder: string): Promise<void> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT') return;
    const why = code === 'ENOTDIR' ? 'is not a folder' : `cannot be read (${code})`;
    throw new HoldfastError('recovery.target-unusable', `${folder} ${why}.`, { cause: error });
  }
  if (entries.length === 0) return;
  const unfinished = entries.some((entry) => entry.name === markerName);
  const what = unfinished ? 'holds an unfinished restore' : `is not empty (it holds ${entries[0]!.name})`;
  throw new HoldfastError('recovery.target-not-empty', `${folder} ${what}. Nothing was written.`, {
    details: { folder },
    ...(unfinished ? { next: `Delete it (\`rm -r ${folder}\`), or give another folder with \`--to\`.` } : {}),
  });
}

/** The folder, or the nearest one above it in which it would be made, must let this user in. */
async function refuseClosed(folder: string): Promise<void> {
  for (let at = folder; ; at = dirname(at)) {
    try {
      await access(at, constants.W_OK | constants.X_OK);
      return;
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === 'ENOENT' && at !== dirname(at)) continue;
      throw new HoldfastError(
        'recovery.target-unusable',
        `This user may not write in ${at} (${code}), so nothing can be restored into ${folder}.`,
        { cause: error },
      );
    }
  }
}

async function freeBytes(path: string): Promise<number> {
  for (let at = path; ; at = dirname(at)) {
    try {
      const facts: StatsFs = await statfs(at);
      return facts.bavail * facts.bsize;
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT' || at === dirname(at)) throw error;
    }
  }
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024 / 1024).toLocaleString('en')} MiB`;
}

function unusable(message: string, next?: string): HoldfastError {
  return new HoldfastError('recovery.target-unusable', message, next === undefined ? {} : { next });
}

/** Makes the folder, marked as unfinished. Throws `recovery.target-unusable` when the server's user cannot enter it. */
export async function openTarget(to: string, owner: ServerUser | undefined): Promise<void> {
  try {
    await makeFolder(to, owner);
  } catch (error) {
    throw new HoldfastError('recovery.target-unusable', `${to} cannot be created: ${String(error)}.`, {
      cause: error,
    });
  }
  if (owner !== undefined) await refuseClosedParents(to, owner);
  await block(to, owner);
}

async function refuseClosedParents(to: string, owner: ServerUser): Promise<void> {
  const reached = await runProgram('test', ['-x', to], { user: owner, deadlineMs: 10_000 });
  if (reached.status === 0) return;
  await rm(to, { recursive: true, force: true });
  throw unusable(
    `The user ${owner.name}, who runs the restored server because PostgreSQL refuses to run as root, cannot enter ${to}: a folder above it is closed to others.`,
    'Give a folder that others can reach with `--to`, e.g. below /var/lib or /srv.',
  );
}

/** Makes the folder unstartable and says so in it. Durable. */
export async function block(to: string, owner: ServerUser | undefined): Promise<void> {
  await writeDurably(join(to, markerName), markerText, owner);
  await writeDurably(join(to, 'postgresql.auto.conf'), blockedConf, owner);
}

/** Makes a folder that was startable unstartable again, after a failure. Its data stays for those who want to look. */
export async function blockAgain(to: string, owner: ServerUser | undefined): Promise<void> {
  await block(to, owner);
  const control = join(to, 'global', 'pg_control');
  try {
    await rename(control, `${control}.unfinished`);
    await syncFolder(join(to, 'global'));
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
}

/** The restore is finished: takes the marker away. Durable. */
export async function unmark(to: string): Promise<void> {
  await rm(join(to, markerName), { force: true });
  await syncFolder(to);
}
