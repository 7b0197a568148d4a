/**
 * What a PostgreSQL snapshot and a log part carry, sealed, for those who restore them: the agreement between
 * taking a snapshot, capturing and restoring. Plain JSON, checked by hand where it is read: it comes out of an
 * authenticated object, but perhaps from another version of Holdfast.
 *
 * Entries of a snapshot are the files of the data directory under their relative paths (`base/…`,
 * `global/pg_control`, `backup_label`, `tablespace_map`, …), and
 * - `pg_wal/<24 hex digits>`: whole segments, from the first page of the segment that holds `startLsn` to the
 *   one that holds the byte before `stopLsn`; what follows `stopLsn` in the last one may be zeros,
 * - `pg_tblspc/<oid>/PG_…/…`: contents of tablespaces,
 * - `holdfast/config/<absolute path without the leading slash>`: configuration files outside the data directory.
 */
import { HoldfastError } from '../../core/errors.ts';
import type { Json, JsonObject } from '../../repository/contract.ts';

/** A tablespace outside the data directory. */
export interface SnapshotTablespace {
  /** Decimal. */
  readonly oid: string;
  /** Absolute path on the source. */
  readonly location: string;
}

/** A configuration file outside the data directory. */
export interface SnapshotConfigFile {
  /** Absolute path on the source. */
  readonly path: string;
  /** Path of the entry in the snapshot. */
  readonly entry: string;
}

/** Sealed meta of a snapshot. */
export interface SnapshotMeta {
  /** `server_version_num`, e.g. 150018. */
  readonly version: number;
  /** Decimal. */
  readonly systemId: string;
  readonly timeline: number;
  /** Positions as the repository's strings (16 upper-case hexadecimal digits). */
  readonly startLsn: string;
  readonly stopLsn: string;
  /** Bytes. */
  readonly walSegmentSize: number;
  readonly dataChecksums: boolean;
  /** `x64`, `arm64`, … as Node names it; null where the source cannot be asked. */
  readonly architecture: string | null;
  readonly tablespaces: readonly SnapshotTablespace[];
  /**
   * `pg_settings` (name → setting, in base units) whose source is a file, the command line or the environment,
   * and always those that recovery needs (`recoveryLimits`) as they are in force.
   */
  readonly settings: Readonly<Record<string, string>>;
  /** Known timeline histories: `00000002.history` → text. */
  readonly histories: Readonly<Record<string, string>>;
  readonly configFiles: readonly SnapshotConfigFile[];
  /** Collation facts: provider or database → version, as the server says it. Compared by people, not by us. */
  readonly collations: Readonly<Record<string, string>>;
  /** The superuser that bootstrapped the cluster (role with oid 10), for the connection after a restore. */
  readonly superuser: string;
}

/** Sealed meta of a log part. */
export interface PartMeta {
  /** End of the last complete record in the stream up to this part's end; position, or null when none is complete yet. */
  readonly recordEnd: string | null;
  readonly histories: Readonly<Record<string, string>>;
}

/** Settings that replay needs at least as high as on the source. Always in `SnapshotMeta.settings`. */
export const recoveryLimits = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const;

/** Where a configuration file outside the data directory is kept in the snapshot. */
export function configEntry(absolutePath: string): string {
  return `holdfast/config/${absolutePath.replace(/^\/+/, '')}`;
}

/** The JSON to seal with a snapshot. */
export function sealSnapshotMeta(meta: SnapshotMeta): JsonObject {
  return {
    ...meta,
    tablespaces: meta.tablespaces.map(({ oid, location }) => ({ oid, location })),
    configFiles: meta.configFiles.map(({ path, entry }) => ({ path, entry })),
  };
}

/** Reads the meta of a snapshot. Throws `repository.damaged` when it is not one of PostgreSQL. */
export function openSnapshotMeta(json: JsonObject): SnapshotMeta {
  return {
    version: number(json, 'version'),
    systemId: matching(json, 'systemId', /^\d{1,20}$/),
    timeline: number(json, 'timeline'),
    startLsn: matching(json, 'startLsn', position),
    stopLsn: matching(json, 'stopLsn', position),
    walSegmentSize: segmentSize(json),
    dataChecksums: json.dataChecksums === true,
    architecture: typeof json.architecture === 'string' ? json.architecture : null,
    tablespaces: objects(json, 'tablespaces').map((item) => ({
      oid: matching(item, 'oid', /^\d{1,10}$/),
      location: matching(item, 'location', /^\//),
    })),
    settings: texts(json, 'settings'),
    histories: histories(json),
    configFiles: objects(json, 'configFiles').map((item) => ({
      path: matching(item, 'path', /^\//),
      entry: matching(item, 'entry', /^holdfast\/config\//),
    })),
    collations: json.collations === undefined ? {} : texts(json, 'collations'),
    superuser: matching(json, 'superuser', /./),
  };
}

/** Reads the meta of a log part; fields that are absent are unknown. Throws `repository.damaged` for malformed ones. */
export function openPartMeta(json: JsonObject): PartMeta {
  return {
    recordEnd:
      json.recordEnd === undefined || json.recordEnd === null ? null : matching(json, 'recordEnd', position),
    histories: json.histories === undefined ? {} : histories(json),
  };
}

const position = /^[0-9A-F]{16}$/;

function malformed(field: string): HoldfastError {
  return new HoldfastError(
    'repository.damaged',
    `The description of this PostgreSQL snapshot or log part is not readable: the field "${field}" is missing or malformed.`,
    { next: 'It may be from a newer version of Holdfast: use that one. Else restore from another snapshot.' },
  );
}

function number(json: JsonObject, field: string): number {
  const value = json[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0) throw malformed(field);
  return value;
}

function matching(json: JsonObject, field: string, pattern: RegExp): string {
  const value = json[field];
  if (typeof value !== 'string' || !pattern.test(value)) throw malformed(field);
  return value;
}

function segmentSize(json: JsonObject): number {
  const size = number(json, 'walSegmentSize');
  const valid = size >= 2 ** 20 && size <= 2 ** 30 && (size & (size - 1)) === 0;
  if (!valid) throw malformed('walSegmentSize');
  return size;
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function objects(json: JsonObject, field: string): JsonObject[] {
  const value = json[field];
  if (!Array.isArray(value)) throw malformed(field);
  return value.map((item: Json) => {
    if (!isObject(item)) throw malformed(field);
    return item;
  });
}

function texts(json: JsonObject, field: string): Record<string, string> {
  const value = json[field];
  if (!isObject(value)) throw malformed(field);
  const result: Record<string, string> = {};
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw malformed(`${field}.${key}`);
    result[key] = text;
  }
  return result;
}

function histories(json: JsonObject): Record<string, string> {
  const result = texts(json, 'histories');
  // Names become file names.
  for (const name of Object.keys(result))
    if (!/^[0-9A-F]{8}\.history$/.test(name)) throw malformed(`histories.${name}`);
  return result;
}
