/** What a snapshot keeps about a cluster besides its data: settings, limits, configuration files elsewhere. */
import { isHoldfastError } from '../../core/errors.ts';
import type { Ancestor } from '../../repository/contract.ts';
import { lineageOf, parseHistory } from './position.ts';
import { configEntry, recoveryLimits, type SnapshotConfigFile } from './snapshot-meta.ts';
import type { PostgresConnection } from './wire.ts';

export interface ClusterFacts {
  /** `server_version_num`. */
  readonly version: number;
  readonly standby: boolean;
  readonly walSegmentSize: number;
  readonly dataChecksums: boolean;
  /** 0o700 or 0o750. */
  readonly directoryMode: number;
  readonly architecture: string | null;
  readonly settings: Readonly<Record<string, string>>;
  readonly collations: Readonly<Record<string, string>>;
  readonly superuser: string;
  /** The server's clock, milliseconds since 1970. */
  readonly clock: number;
  /** Null where the role may not see it. */
  readonly dataDirectory: string | null;
  readonly warnings: readonly string[];
}

/** A configuration file outside the data directory, read. */
export interface ConfigFile extends SnapshotConfigFile {
  readonly content: Uint8Array;
}

/** Settings with values longer than this are left out, so that what is sealed stays small. */
const settingLimit = 2048;
/** A server with a longer history of failovers keeps the newest of it, which names all ancestors. */
const historiesLimit = 16 * 1024;

const settingsQuery = `
  SELECT name, setting FROM pg_catalog.pg_settings
  WHERE source IN ('configuration file', 'command line', 'environment variable', 'global')
     OR name IN ('wal_segment_size', 'data_checksums', 'data_directory', 'data_directory_mode', 'block_size',
                 'wal_block_size', ${recoveryLimits.map((name) => `'${name}'`).join(', ')})`;

/** Settings of the server as such, which are answered but not kept among the settings to restore. */
const notKept = new Set(['wal_segment_size', 'data_checksums', 'data_directory', 'data_directory_mode']);

/** Asks the server. Only what every role may see is required; what else is missing becomes a warning. */
export async function readCluster(sql: PostgresConnection, signal: AbortSignal): Promise<ClusterFacts> {
  const [self] = await sql.rows(
    `SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.version() AS build,
            pg_catalog.pg_has_role('pg_read_all_settings', 'MEMBER') AS all_settings, current_user AS role,
            (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10) AS superuser,
            (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint AS clock`,
    { signal },
  );
  const all = new Map<string, string>();
  for (const { name, setting } of await sql.rows(settingsQuery, { signal })) all.set(name!, setting ?? '');
  const warnings: string[] = [];
  if (self?.all_settings !== 't') {
    warnings.push(
      `The role ${self?.role} may not see every setting, so the snapshot lacks some (shared_preload_libraries, the places of configuration files): GRANT pg_read_all_settings TO ${identifier(self?.role ?? '')};`,
    );
  }
  const mode = all.get('data_directory_mode') ?? '0700';
  return {
    version: sql.serverVersion,
    standby: self?.standby === 't',
    walSegmentSize: Number(all.get('wal_segment_size')),
    dataChecksums: all.get('data_checksums') === 'on',
    directoryMode: Number.parseInt(mode, 8),
    architecture: architectureOf(self?.build ?? ''),
    settings: keptSettings(all),
    collations: await readCollations(sql, signal),
    superuser: self?.superuser ?? 'postgres',
    clock: Number(self?.clock),
    dataDirectory: all.get('data_directory') ?? null,
    warnings,
  };
}

function keptSettings(all: ReadonlyMap<string, string>): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of [...all].sort()) {
    if (!notKept.has(name) && value.length <= settingLimit) kept[name] = value;
  }
  return kept;
}

/** The triplet that `version()` prints, as Node names architectures. */
function architectureOf(build: string): string | null {
  const found = / on (x86_64|amd64|aarch64|arm64|powerpc64le|ppc64le|s390x|riscv64)-/.exec(build)?.[1];
  const names: Readonly<Record<string, string>> = {
    x86_64: 'x64',
    amd64: 'x64',
    aarch64: 'arm64',
    powerpc64le: 'ppc64',
    ppc64le: 'ppc64',
  };
  return found === undefined ? null : (names[found] ?? found);
}

async function readCollations(sql: PostgresConnection, signal: AbortSignal): Promise<Record<string, string>> {
  const version = sql.serverVersion >= 150_000 ? 'datcollversion' : 'NULL';
  const rows = await sql.rows(
    `SELECT datname, datcollate, ${version} AS version FROM pg_catalog.pg_database
     WHERE datallowconn ORDER BY oid LIMIT 100`,
    { signal },
  );
  return Object.fromEntries(
    rows.map(({ datname, datcollate, version }) => [
      datname!,
      version === null || version === undefined ? datcollate! : `${datcollate} ${version}`,
    ]),
  );
}

/**
 * The configuration files that do not lie in the data directory, as far as the role may read them. For what it
 * may not, a warning names the grant.
 */
export async function readConfigFiles(
  sql: PostgresConnection,
  facts: ClusterFacts,
  signal: AbortSignal,
): Promise<{ readonly files: readonly ConfigFile[]; readonly warnings: readonly string[] }> {
  const warnings: string[] = [];
  const paths = await outsidePaths(sql, facts, signal);
  const files: ConfigFile[] = [];
  const denied: string[] = [];
  for (const path of paths) {
    try {
      const [row] = await sql.rows(
        `SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file(${literal(path)}), 'base64') AS content`,
        { signal },
      );
      files.push({ path, entry: configEntry(path), content: Buffer.from(row?.content ?? '', 'base64') });
    } catch (error) {
      if (isHoldfastError(error, 'postgres.denied')) denied.push(path);
      else if (isHoldfastError(error, 'postgres.statement-failed')) {
        warnings.push(`The configuration file ${path} is not in the snapshot: ${error.message}`);
      } else throw error;
    }
  }
  if (denied.length > 0) {
    const role = identifier((await sql.rows('SELECT current_user AS role', { signal }))[0]?.role ?? '');
    warnings.push(
      `Configuration files outside the data directory are not in the snapshot, because the role may not read them: ${denied.join(', ')}. To include them: GRANT pg_read_server_files TO ${role}; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO ${role};`,
    );
  }
  return { files, warnings };
}

async function outsidePaths(
  sql: PostgresConnection,
  facts: ClusterFacts,
  signal: AbortSignal,
): Promise<string[]> {
  const root = facts.dataDirectory;
  // Without the right to see the settings there is nothing to look for; that was already said.
  if (root === null) return [];
  const queries = [
    `SELECT setting AS path FROM pg_catalog.pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')`,
    'SELECT DISTINCT sourcefile AS path FROM pg_catalog.pg_file_settings',
    ...(facts.version >= 160_000
      ? [
          'SELECT DISTINCT file_name AS path FROM pg_catalog.pg_hba_file_rules',
          'SELECT DISTINCT file_name AS path FROM pg_catalog.pg_ident_file_mappings',
        ]
      : []),
  ];
  const paths = new Set<string>();
  for (const query of queries) {
    try {
      for (const { path } of await sql.rows(query, { signal })) {
        if (path?.startsWith('/') && !path.startsWith(`${root}/`)) paths.add(path);
      }
    } catch (error) {
      // The views beyond the first are for superusers; without them included files are not found.
      if (!isHoldfastError(error, 'postgres.denied')) throw error;
    }
  }
  return [...paths].sort();
}

export interface Histories {
  /** `00000002.history` → text. */
  readonly files: Readonly<Record<string, string>>;
  readonly ancestors: readonly Ancestor[];
}

/** All histories that the server still has, the current timeline's first of all. On a replication connection. */
export async function readHistories(
  replication: PostgresConnection,
  systemId: string,
  timeline: number,
): Promise<Histories> {
  const files: Record<string, string> = {};
  let ancestors: Ancestor[] = [];
  let room = historiesLimit;
  for (let at = timeline; at > 1 && room > 0; at -= 1) {
    const text = await historyOf(replication, at);
    if (text === undefined) {
      if (at === timeline) throw new Error(`the server has no history of its own timeline ${timeline}`);
      continue;
    }
    room -= text.content.length;
    if (room < 0 && at !== timeline) break;
    files[text.filename] = text.content;
    if (at === timeline) ancestors = ancestorsOf(systemId, text.content);
  }
  return { files, ancestors };
}

/** `lineage` was left at `position` by its successor; oldest first. */
export function ancestorsOf(systemId: string, history: string): Ancestor[] {
  return parseHistory(history).map(({ timeline, lsn }) => ({
    lineage: lineageOf(systemId, timeline),
    position: lsn.toString(16).toUpperCase().padStart(16, '0'),
  }));
}

async function historyOf(
  replication: PostgresConnection,
  timeline: number,
): Promise<{ filename: string; content: string } | undefined> {
  try {
    const { filename, content } = await replication.timelineHistory(timeline);
    return { filename, content: Buffer.from(content).toString('utf8') };
  } catch (error) {
    // Restored servers may lack older files (58P01: the file is not there).
    if (isHoldfastError(error) && error.details.sqlState === '58P01') return undefined;
    throw error;
  }
}

/** A string as SQL writes it, whatever standard_conforming_strings says. */
export function literal(text: string): string {
  return `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

/** A name as SQL writes it. */
export function identifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
