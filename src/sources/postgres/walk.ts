/**
 * What of a data directory belongs into a snapshot: everything that BASE_BACKUP would send
 * (src/backend/backup/basebackup.c), and nothing that a restored server must not find.
 */
import { type Dirent, lstatSync, readdirSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { systemErrorCode } from '../../core/errors.ts';
import type { EntryMeta } from '../../repository/contract.ts';

export interface FoundFile {
  readonly meta: EntryMeta;
  /** Absolute. */
  readonly path: string;
  readonly size: number;
  /** For a file of pages: number of its segment; null for others, which have no checksums. */
  readonly segment: number | null;
}

/** A directory has no `path` to read. */
export type Found = FoundFile | { readonly meta: EntryMeta; readonly path: null };

export interface Tablespace {
  readonly oid: string;
  readonly location: string;
}

export interface WalkOptions {
  readonly root: string;
  /** `PG_15_202209061`: what other versions keep in the same tablespace is not ours. */
  readonly catalogVersion: string;
  /** For people: what was left out though somebody may miss it. */
  readonly onWarning: (warning: string) => void;
}

/**
 * In the root. Leftovers of a recovery would start another one; `backup_label` and `tablespace_map` come from
 * pg_backup_stop, never from the disk; pg_control is read last.
 */
const excludedAtRoot =
  /^(?:postmaster\.(?:pid|opts)|(?:backup_label|tablespace_map)(?:\.old)?|(?:recovery|standby)\.signal|recovery\.(?:conf|done)|backup_manifest|current_logfiles(?:\.tmp)?|postgresql\.auto\.conf\.tmp|RESTORE-UNFINISHED\.txt)$/;
const excluded = /^(?:pgsql_tmp.*|pg_internal\.init(?:\.\d+)?)$/;
/** Directories that a server wants empty. */
const emptied = new Set([
  ...['pg_wal', 'pg_replslot', 'pg_dynshmem', 'pg_notify', 'pg_serial', 'pg_snapshots', 'pg_stat_tmp'],
  'pg_subtrans',
]);
/** PostgreSQL's own directories: followed where they were moved and replaced by a link. */
const ownDirectory = /^(?:base|global|pg_[a-z_]+)$/;
const databaseDirectory = /^(?:base\/\d+|global|pg_tblspc\/\d+\/[^/]+\/\d+)$/;
const temporaryRelation = /^t\d+_\d+(?:_(?:fsm|vm))?(?:\.\d+)?$/;
const relation = /^(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?$/;

/** Walks in ascending byte order of the entries' paths. */
export class DataWalk {
  readonly #options: WalkOptions;
  readonly tablespaces: Tablespace[] = [];

  constructor(options: WalkOptions) {
    this.#options = options;
  }

  *entries(): Generator<Found> {
    yield* this.#directory('', this.#options.root);
  }

  /** Sizes of the files that `entries` will find, for a display: says and keeps nothing. */
  *measured(): Generator<number> {
    const silent = new DataWalk({ ...this.#options, onWarning: () => undefined });
    for (const found of silent.entries()) yield found.path === null ? 0 : found.size;
  }

  *#directory(below: string, path: string): Generator<Found> {
    const listed = this.#list(below, path);
    if (listed === undefined) return;
    const dropped = databaseDirectory.test(below) ? unlogged(listed) : undefined;
    // As if directories ended in a slash: then the files come in order of their whole paths.
    const keyed = listed.map((entry) => ({
      entry,
      key: entry.isDirectory() ? `${entry.name}/` : entry.name,
    }));
    if (keyed.some(({ key }) => /[^\0-\x7f]/.test(key)))
      keyed.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
    else keyed.sort((a, b) => (a.key < b.key ? -1 : 1));
    for (const { entry } of keyed) {
      const { name } = entry;
      if (isExcluded(below, name) || dropped?.(name) === true) continue;
      if (name.includes('\ufffd')) {
        this.#options.onWarning(`${join(path, name)} is not in the snapshot: its name is not UTF-8.`);
        continue;
      }
      yield* this.#entry(below === '' ? name : `${below}/${name}`, join(path, name));
    }
  }

  #list(below: string, path: string): Dirent[] | undefined {
    try {
      return readdirSync(path, { withFileTypes: true });
    } catch (error) {
      // A database that is being dropped.
      if (systemErrorCode(error) === 'ENOENT' && below !== '') return undefined;
      // Every file system of its own has one, and only root may look into it.
      if (below === 'lost+found' && systemErrorCode(error) === 'EACCES') return [];
      throw error;
    }
  }

  *#entry(entry: string, path: string): Generator<Found> {
    const found = statOf(path, false);
    if (found === undefined) return;
    if (found.isSymbolicLink()) yield* this.#link(entry, path);
    else if (found.isDirectory()) yield* this.#inside(entry, path, found);
    else if (found.isFile()) yield fileOf(entry, path, found);
    else this.#options.onWarning(`${path} is not in the snapshot: it is no file, directory or link.`);
  }

  *#inside(entry: string, path: string, stats: Stats): Generator<Found> {
    yield directoryOf(entry, stats);
    if (entry === 'pg_wal') yield directoryOf('pg_wal/archive_status', stats);
    if (!emptied.has(entry)) yield* this.#directory(entry, path);
  }

  *#link(entry: string, path: string): Generator<Found> {
    const target = statOf(path, true);
    if (/^pg_tblspc\/\d+$/.test(entry)) {
      yield* this.#tablespace(entry, path, target);
    } else if (target?.isDirectory() === true && ownDirectory.test(entry)) {
      yield* this.#inside(entry, path, target);
    } else if (target?.isFile() === true) {
      yield fileOf(entry, path, target);
    } else {
      this.#options.onWarning(`${path} is not in the snapshot: it is a link to ${readlinkSync(path)}.`);
    }
  }

  *#tablespace(entry: string, path: string, target: Stats | undefined): Generator<Found> {
    const location = readlinkSync(path);
    if (target === undefined || !isAbsolute(location)) {
      // Dropped since it was listed; a link that leads nowhere was found before the backup began.
      return;
    }
    this.tablespaces.push({ oid: entry.slice('pg_tblspc/'.length), location });
    yield directoryOf(entry, target);
    const inner = `${entry}/${this.#options.catalogVersion}`;
    const stats = statOf(join(path, this.#options.catalogVersion), true);
    if (stats !== undefined) yield* this.#inside(inner, join(path, this.#options.catalogVersion), stats);
  }
}

function isExcluded(below: string, name: string): boolean {
  if (excluded.test(name)) return true;
  if (below === '') return excludedAtRoot.test(name);
  if (below === 'global' && name === 'pg_control') return true;
  return databaseDirectory.test(below) && temporaryRelation.test(name);
}

/** Unlogged relations are empty after recovery: only their init fork counts, from which the server makes them anew. */
function unlogged(entries: readonly Dirent[]): (name: string) => boolean {
  const oids = new Set<string>();
  for (const { name } of entries) {
    const found = relation.exec(name);
    if (found?.[2] === 'init') oids.add(found[1]!);
  }
  return (name) => {
    const found = oids.size === 0 ? null : relation.exec(name);
    return found !== null && found[2] !== 'init' && oids.has(found[1]!);
  };
}

function statOf(path: string, follow: boolean): Stats | undefined {
  try {
    return follow ? statSync(path) : lstatSync(path);
  } catch (error) {
    // It is allowed to vanish while we look.
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function metaOf(path: string, type: EntryMeta['type'], stats: Stats): EntryMeta {
  const { uid, gid } = stats;
  return { path, type, mode: stats.mode & 0o7777, uid, gid, mtime: Math.trunc(stats.mtimeMs) };
}

function directoryOf(path: string, stats: Stats): Found {
  return { meta: metaOf(path, 'directory', stats), path: null };
}

function fileOf(entry: string, path: string, stats: Stats): FoundFile {
  const slash = entry.lastIndexOf('/');
  const found = databaseDirectory.test(entry.slice(0, Math.max(slash, 0)))
    ? relation.exec(entry.slice(slash + 1))
    : null;
  const segment = found === null ? null : Number(found[3] ?? 0);
  return { meta: metaOf(entry, 'file', stats), path, size: stats.size, segment };
}
