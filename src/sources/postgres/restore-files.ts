/** From a snapshot's entries to a data directory, without the pieces that must be adapted or come last. */
import { lstat, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../../core/context.ts';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import type { Entry, OpenedSnapshot, RepositoryReader } from '../../repository/contract.ts';
import { makeFolder, syncFolder, writeDurably } from './durable-file.ts';
import { restoreFolder, tablespaceMap } from './recovery-settings.ts';
import type { ServerUser } from './server-user.ts';
import type { SnapshotMeta } from './snapshot-meta.ts';

const segmentEntry = /^pg_wal\/[0-9A-F]{24}$/;

/** Entries whose content is needed here or that are written in another form. */
const kept = new Set([
  'global/pg_control',
  'backup_label',
  'tablespace_map',
  'postgresql.conf',
  'postgresql.auto.conf',
  'pg_hba.conf',
  'pg_ident.conf',
]);

/** What belonged to the running source, or to an earlier restore of it. */
const left =
  /^(tablespace_map|postgresql\.auto\.conf|global\/pg_control|postmaster\.(pid|opts)|recovery\.(signal|conf|done)|standby\.signal|current_logfiles|RESTORE-UNFINISHED\.txt|holdfast-restore(\/.*)?|(pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans)\/.+)$/;

/** PostgreSQL wants them even when they are empty. */
const folders = [
  ...[
    'base',
    'global',
    'pg_commit_ts',
    'pg_dynshmem',
    'pg_logical',
    'pg_logical/mappings',
    'pg_logical/snapshots',
  ],
  ...[
    'pg_multixact',
    'pg_multixact/members',
    'pg_multixact/offsets',
    'pg_notify',
    'pg_replslot',
    'pg_serial',
  ],
  ...['pg_snapshots', 'pg_stat', 'pg_stat_tmp', 'pg_subtrans', 'pg_tblspc', 'pg_twophase', 'pg_wal'],
  ...['pg_wal/archive_status', 'pg_xact'],
];

export interface RestoreFilesOptions {
  readonly reader: RepositoryReader;
  readonly snapshot: OpenedSnapshot;
  readonly meta: SnapshotMeta;
  readonly to: string;
  readonly owner: ServerUser | undefined;
  /** Folders of tablespaces by OID. */
  readonly places: ReadonlyMap<string, string>;
}

export interface RestoredFiles {
  readonly files: number;
  readonly bytes: number;
  /** Content of small files of the snapshot, empty where there was none. */
  readonly text: (path: string) => string;
  /** To be written when everything else is durable. */
  readonly control: Uint8Array;
}

/** Folder of the snapshot's own segments, until the spool takes them. */
export function snapshotWalFolder(to: string): string {
  return join(to, restoreFolder, 'snapshot-wal');
}

/** Writes everything but pg_control and postgresql.auto.conf; durable when it resolves. */
export async function restoreFiles(
  options: RestoreFilesOptions,
  context: RunContext,
): Promise<RestoredFiles> {
  const { reader, snapshot, to, owner, places } = options;
  const special = await survey(options, context.signal);
  await makeFolder(join(to, restoreFolder), owner);
  await makeFolder(snapshotWalFolder(to), owner);
  for (const place of places.values()) await makeFolder(place, owner);
  const { files, bytes } = await reader.extract(
    snapshot,
    {
      place: (entry) => placeOf(entry, to, places),
      sync: true,
      ...(owner === undefined ? {} : { owner: { uid: owner.uid, gid: owner.gid } }),
    },
    context,
  );
  for (const folder of folders) await addFolder(join(to, folder), owner);
  for (const [oid, place] of places) await symlink(place, join(to, 'pg_tblspc', oid));
  await syncFolder(join(to, 'pg_tblspc'));
  if (places.size > 0) await writeDurably(join(to, 'tablespace_map'), tablespaceMap(places), owner);
  const contents = new Map<string, Uint8Array>();
  for (const [path, entry] of special)
    contents.set(path, await reader.readEntry(snapshot, entry, context.signal));
  const control = contents.get('global/pg_control');
  if (control === undefined || !contents.has('backup_label')) throw incomplete(snapshot);
  return {
    files: files + 1,
    bytes: bytes + control.length,
    control,
    text: (path) => Buffer.from(contents.get(path) ?? []).toString('utf8'),
  };
}

/** pg_control, with which the data directory becomes one. Durable when it resolves. */
export async function finishFiles(
  to: string,
  control: Uint8Array,
  owner: ServerUser | undefined,
): Promise<void> {
  await writeDurably(join(to, 'global', 'pg_control'), control, owner);
}

async function survey(options: RestoreFilesOptions, signal: AbortSignal): Promise<Map<string, Entry>> {
  const special = new Map<string, Entry>();
  for await (const entry of options.snapshot.entries(signal)) {
    if (entry.type !== 'file') continue;
    const external = options.meta.configFiles.some((file) => file.entry === entry.path);
    if (kept.has(entry.path) || external) special.set(entry.path, entry);
  }
  if (!special.has('global/pg_control') || !special.has('backup_label')) throw incomplete(options.snapshot);
  return special;
}

function incomplete(snapshot: OpenedSnapshot): HoldfastError {
  return new HoldfastError(
    'repository.damaged',
    `The snapshot ${snapshot.header.id} holds no pg_control or no backup_label: it is not a whole PostgreSQL data directory.`,
    { details: { snapshot: snapshot.header.id } },
  );
}

/** Absolute place of an entry, or null for what is not restored as it is. */
function placeOf(entry: Entry, to: string, tablespaces: ReadonlyMap<string, string>): string | null {
  const { path } = entry;
  if (left.test(path)) return null;
  if (segmentEntry.test(path)) return join(snapshotWalFolder(to), path.slice('pg_wal/'.length));
  if (path === 'holdfast' || path.startsWith('holdfast/')) {
    return path.startsWith('holdfast/config/')
      ? join(to, restoreFolder, path.slice('holdfast/'.length))
      : null;
  }
  const tablespace = /^pg_tblspc\/(\d+)(\/.*)?$/.exec(path);
  if (tablespace !== null) {
    const place = tablespaces.get(tablespace[1]!);
    if (place !== undefined) return tablespace[2] === undefined ? null : join(place, tablespace[2]);
  }
  // A link would lead out of the folder, to places of the source; only tablespaces are meant to be links.
  if (entry.type === 'symlink') return null;
  return join(to, path);
}

async function addFolder(path: string, owner: ServerUser | undefined): Promise<void> {
  try {
    await lstat(path);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    await makeFolder(path, owner);
  }
}
