/** Turns the archives of a base backup into entries of a snapshot. */
import type { Step } from '../../core/progress.ts';
import type { EntryMeta, Lane, SnapshotSink } from '../../repository/contract.ts';
import { type TarEntry, TarReader } from './tar.ts';

/**
 * What must not come back. BASE_BACKUP leaves out most of it by itself (basebackup.c, `excludeFiles` and
 * `excludeDirContents`); this is for what it does not: leftovers of an earlier recovery would make a restored
 * server begin one of its own.
 */
const excluded =
  /^(?:postmaster\.(?:pid|opts)|backup_label\.old|tablespace_map\.old|(?:recovery|standby)\.signal|recovery\.(?:conf|done)|backup_manifest)$|(?:^|\/)(?:pgsql_tmp[^/]*|pg_internal\.init(?:\.\d+)?)(?:\/|$)/;

export interface BackupArchiveOptions {
  readonly sink: SnapshotSink;
  readonly lane: Lane;
  /** Of the directories that are made before the archive brings them. */
  readonly directoryMode: number;
  readonly step: Step;
}

/** Feed with the archives in order; then `finish`. */
export class BackupArchive {
  readonly #options: BackupArchiveOptions;
  readonly #directories = new Set<string>();
  #prefix = '';
  #reader: TarReader | undefined;
  #writing = false;
  bytes = 0;

  constructor(options: BackupArchiveOptions) {
    this.#options = options;
    // The log's lane puts files below these while the archives are still on their way.
    this.#directory('pg_wal');
    this.#directory('pg_wal/archive_status');
  }

  /** `base.tar`, or `<oid>.tar` of a tablespace. */
  begin(name: string): void {
    this.#reader?.finish();
    const oid = /^(\d+)\.tar/.exec(name)?.[1];
    this.#prefix = '';
    if (oid !== undefined) {
      this.#directory('pg_tblspc');
      this.#directory(`pg_tblspc/${oid}`);
      this.#prefix = `pg_tblspc/${oid}/`;
    }
    this.#reader = new TarReader({
      begin: (entry) => this.#begin(entry),
      data: (bytes) => this.#data(bytes),
      end: () => this.#end(),
    });
  }

  push(chunk: Uint8Array): Promise<void> | undefined {
    return this.#reader!.push(chunk);
  }

  finish(): void {
    this.#reader?.finish();
  }

  #directory(path: string): void {
    this.#directories.add(path);
    this.#options.sink.entry({ path, type: 'directory', mode: this.#options.directoryMode });
  }

  #begin(tar: TarEntry): void {
    const path = this.#prefix + tar.path;
    this.#writing = false;
    if (excluded.test(path)) return;
    const { mode, uid, gid, mtime } = tar;
    if (tar.type === 'directory' && this.#directories.has(path)) return;
    const entry: EntryMeta = { path, type: tar.type, mode, uid, gid, mtime };
    if (tar.type === 'file' && tar.size > 0) {
      this.#writing = true;
      this.#options.lane.begin(entry);
    } else {
      this.#options.sink.entry(tar.type === 'symlink' ? { ...entry, target: tar.target } : entry);
    }
  }

  #data(bytes: Uint8Array): Promise<void> | undefined {
    if (!this.#writing) return undefined;
    this.bytes += bytes.length;
    this.#options.step.advance(bytes.length);
    return this.#options.lane.write(bytes);
  }

  #end(): void {
    if (this.#writing) this.#options.lane.end();
    this.#writing = false;
  }
}
