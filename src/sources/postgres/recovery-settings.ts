/**
 * The configuration of a restored server: what makes it recover to the right place, and what cuts it off from
 * the world of its source. A copy that keeps its source's settings does harm: it archives into the source's
 * archive, waits for synchronous standbys that are not there, and takes its publisher's replication slot.
 *
 * All of it goes into postgresql.auto.conf, because that file wins over every other, whoever starts the
 * server and however; taking it back is one script (`releaseScript`). Pure: nothing here touches a file.
 */
import { quoteSetting, socketHba } from './server.ts';
import { recoveryLimits, type SnapshotMeta } from './snapshot-meta.ts';

/** Inside the restored data directory; everything of ours that is not PostgreSQL's. */
export const restoreFolder = 'holdfast-restore';

export interface RecoveryTarget {
  readonly timeline: number;
  /** As PostgreSQL writes it; replay ends before the first record at or after it. Null: at the log's end. */
  readonly beforeLsn: string | null;
}

export interface CutOffFacts {
  /** The restored data directory. */
  readonly to: string;
  readonly socketDir: string;
  readonly port: number;
  readonly meta: SnapshotMeta;
  /** Libraries to preload that may and can be. */
  readonly libraries: Readonly<Record<LibrarySetting, string>>;
  /** This machine's memory in bytes. */
  readonly memory: number;
}

export const librarySettings = [
  'shared_preload_libraries',
  'session_preload_libraries',
  'local_preload_libraries',
] as const;
export type LibrarySetting = (typeof librarySettings)[number];

/** Libraries that act on the outside or on a schedule by themselves as soon as they are loaded. */
const actingLibraries = new Set([
  'pg_cron',
  'pg_partman_bgw',
  'pglogical',
  'pglogical_output',
  'spock',
  'bdr',
  'pg_net',
  'pg_failover_slots',
  'pg_squeeze',
  'repmgr',
]);

export type Settings = ReadonlyMap<string, string>;

/** Names of a preload list that are kept, and those that are not. `available`: undefined when it cannot be known. */
export function filterLibraries(
  list: string,
  available: ((library: string) => boolean) | undefined,
): { readonly kept: string; readonly left: readonly string[] } {
  const names = list
    .split(',')
    .map((name) => name.trim().replace(/^"(.*)"$/, '$1'))
    .filter((name) => name !== '');
  const kept = names.filter((name) => {
    const base = name.replace(/^.*\//, '').replace(/\.(so|dylib)$/, '');
    return !actingLibraries.has(base) && (available === undefined || available(name));
  });
  return { kept: kept.join(','), left: names.filter((name) => !kept.includes(name)) };
}

/** What keeps a restored server from doing harm, and lets it start here. */
export function cutOffSettings(facts: CutOffFacts): Settings {
  const { meta, to } = facts;
  const major = Math.floor(meta.version / 10_000);
  const settings = new Map<string, string>([
    ['archive_mode', 'off'],
    ['archive_command', ''],
    ['synchronous_standby_names', ''],
    ['max_logical_replication_workers', '0'],
    ['primary_conninfo', ''],
    ['primary_slot_name', ''],
    ['archive_cleanup_command', ''],
    ['recovery_end_command', ''],
    ['recovery_min_apply_delay', '0'],
    // Standby queries during recovery would pause it where a limit was raised in the log.
    ['hot_standby', 'off'],
    ['listen_addresses', '127.0.0.1'],
    ['port', String(facts.port)],
    ['unix_socket_directories', facts.socketDir],
    ['unix_socket_group', ''],
    ['hba_file', `${to}/${restoreFolder}/pg_hba.conf`],
    ['ident_file', `${to}/${restoreFolder}/pg_ident.conf`],
    ['external_pid_file', ''],
    ['bonjour', 'off'],
    ['ssl', 'off'],
    ['huge_pages', 'try'],
    ['logging_collector', 'off'],
    ['log_destination', 'stderr'],
    // The source's locale may not exist here, and the messages are read by Holdfast.
    ['lc_messages', 'C'],
  ]);
  if (major >= 15) settings.set('archive_library', '');
  if (major <= 15) settings.set('promote_trigger_file', '');
  if (major >= 17) settings.set('sync_replication_slots', 'off').set('synchronized_standby_slots', '');
  if (meta.settings.io_method === 'io_uring') settings.set('io_method', 'worker');
  for (const name of librarySettings) settings.set(name, facts.libraries[name]);
  if (/\btimescaledb\b/.test(facts.libraries.shared_preload_libraries)) {
    settings.set('timescaledb.max_background_workers', '0');
  }
  for (const name of recoveryLimits) {
    const value = meta.settings[name];
    if (value !== undefined) settings.set(name, value);
  }
  const buffers = smallerBuffers(meta.settings.shared_buffers, facts.memory);
  if (buffers !== undefined) settings.set('shared_buffers', buffers);
  return settings;
}

/** Half of this machine's memory at most: a source may have had much more. In pages of 8 KiB, as pg_settings has it. */
function smallerBuffers(value: string | undefined, memory: number): string | undefined {
  const most = Math.floor(memory / 2 / 8192);
  return value !== undefined && /^\d+$/.test(value) && Number(value) > most ? String(most) : undefined;
}

const otherTargets = [
  'recovery_target',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_xid',
];

/** What makes the server replay to the right place and go on by itself. */
export function recoverySettings(target: RecoveryTarget, to: string, stale: Iterable<string>): Settings {
  const script = shellQuote(`${to}/${restoreFolder}/fetch-wal.sh`).replaceAll('%', '%%');
  const settings = new Map<string, string>([['restore_command', `sh ${script} "%f" "%p"`]]);
  const staleNames = new Set(stale);
  for (const name of otherTargets) if (staleNames.has(name)) settings.set(name, '');
  settings
    .set('recovery_target_timeline', String(target.timeline))
    .set('recovery_target_inclusive', 'off')
    .set('recovery_target_action', 'promote')
    // Last: PostgreSQL forgets the target when another kind of target is set, even to nothing, after it.
    .set('recovery_target_lsn', target.beforeLsn ?? '');
  return settings;
}

/** Settings that belong to one server and its moment; never carried over. */
const neverKept =
  /^(recovery_target.*|restore_command|primary_conninfo|primary_slot_name|standby_mode|trigger_file|promote_trigger_file|archive_cleanup_command|recovery_end_command)$/;

/** The entries of a postgresql.auto.conf. PostgreSQL writes one a line: `name = 'value'`. */
export function parseSettings(text: string): Map<string, string> {
  const settings = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Za-z_][\w.]*)\s*=?\s*(?:'((?:[^'\\]|''|\\.)*)'|([^\s#']+))/.exec(line);
    if (match === null) continue;
    const quoted = match[2]?.replaceAll("''", "'").replace(/\\(.)/g, '$1');
    settings.set(match[1]!.toLowerCase(), quoted ?? match[3] ?? '');
  }
  return settings;
}

/** The new postgresql.auto.conf: the source's own entries, then ours. */
export function autoConf(original: string, cutOff: Settings, recovery: Settings | undefined): string {
  const ours = new Set([...cutOff.keys(), ...(recovery?.keys() ?? [])]);
  const lines = ['# Kept from the source; lines with # are not in force here.'];
  for (const [name, value] of parseSettings(original)) {
    const line = `${name} = ${quoteSetting(value)}`;
    lines.push(ours.has(name) || neverKept.test(name) ? `# ${line}` : line);
  }
  lines.push('', '# Set by Holdfast: this server is cut off from the world of its source.');
  lines.push(`# To let it take over, read ${restoreFolder}/README.txt.`);
  for (const [name, value] of cutOff) lines.push(`${name} = ${quoteSetting(value)}`);
  if (recovery !== undefined) {
    lines.push('', '# Set by Holdfast: recovery. Without effect once the server has been promoted.');
    for (const [name, value] of recovery) lines.push(`${name} = ${quoteSetting(value)}`);
  }
  return `${lines.join('\n')}\n`;
}

/** SQL that takes back what `autoConf` set and brings the source's own entries back. */
export function releaseScript(original: string, cutOff: Settings, recovery: Settings): string {
  const before = parseSettings(original);
  const lines = [
    '-- Takes back the settings that cut this restored server off from the world of its source:',
    '-- archiving, replication, addresses and access are then as the source had them. Restart it afterwards.',
    '-- Be sure that the source no longer runs: two servers that archive to one place or serve one address do harm.',
  ];
  for (const name of [...cutOff.keys(), ...recovery.keys()]) {
    const value = neverKept.test(name) ? undefined : before.get(name);
    const quotedName = name.includes('.') ? name : `"${name}"`;
    if (value === undefined) lines.push(`ALTER SYSTEM RESET ${quotedName};`);
    else lines.push(`ALTER SYSTEM SET ${quotedName} = ${sqlText(value)};`);
  }
  return `${lines.join('\n')}\n`;
}

function sqlText(value: string): string {
  const quoted = `'${value.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return value.includes('\\') ? `E${quoted}` : quoted;
}

/** Facts that no file can set, and places of the source's machine, which mean nothing, or the wrong thing, here. */
const placeSettings =
  /^(block_size|wal_block_size|wal_segment_size|data_checksums|data_directory_mode|max_stack_depth|data_directory|config_file|hba_file|ident_file|external_pid_file|unix_socket_directories|ssl_.*|krb_.*|log_directory|stats_temp_directory|dynamic_library_path|extension_control_path)$/;

/** A postgresql.conf from what was in force on the source, for clusters whose files were elsewhere (Debian). */
export function generatedConf(meta: SnapshotMeta): string {
  const lines = [
    '# Generated by Holdfast from the settings that were in force on the source, whose configuration files',
    `# lay outside its data directory. Those files are in ${restoreFolder}/config/.`,
  ];
  for (const [name, value] of Object.entries(meta.settings)) {
    if (placeSettings.test(name) || neverKept.test(name)) continue;
    lines.push(`${name} = ${quoteSetting(value)}`);
  }
  return `${lines.join('\n')}\n`;
}

/** A postgresql.conf of the source with what must be added so that it is right in another place. */
export function adaptedConf(original: string, autoOriginal: string, meta: SnapshotMeta, to: string): string {
  const known = new Set([...parseSettings(original).keys(), ...parseSettings(autoOriginal).keys()]);
  const includes = /^\s*include(_dir|_if_exists)?\b/m.test(original);
  const added: string[] = [];
  // Where this is set it would take the server to the source's own data.
  if (known.has('data_directory') || includes) added.push(`data_directory = ${quoteSetting(to)}`);
  for (const [name, value] of Object.entries(meta.settings)) {
    if (known.has(name) || includes || placeSettings.test(name) || neverKept.test(name)) continue;
    added.push(`${name} = ${quoteSetting(value)}`);
  }
  if (added.length === 0) return original;
  const why = '# Added by Holdfast on restoring: places, and what the source had on its command line.';
  return `${original.trimEnd()}\n\n${why}\n${added.join('\n')}\n`;
}

/** Local superusers over the socket, whose folder is closed to others; over loopback with the role's password. */
export function restoredHba(): string {
  return [
    '# Written by Holdfast. The socket folder can be entered only by the user that runs this server.',
    ...socketHba,
    '# md5 means: any kind of password that the role has.',
    'host all all 127.0.0.1/32 md5',
    '',
  ].join('\n');
}

/**
 * The restore_command's script. Status 0: delivered. 1: certainly absent, the log ends here. 126: it cannot be
 * told, so recovery must stop: PostgreSQL takes every status up to 125 for the end of the log and promotes.
 */
export function fetchScript(supervisor: number | null): string {
  const head = `#!/bin/sh
# restore_command of PostgreSQL: brings the piece of the log named $1 to $2.
# Status 0: delivered. 1: certainly absent. 126: cannot be told; recovery then stops instead of ending early.
wal="\${0%/*}/wal"
`;
  if (supervisor === null) {
    return `${head}if [ -f "$wal/$1" ]; then
  cp "$wal/$1" "$2" || exit 126
  exit 0
fi
[ -f "$wal/complete" ] && exit 1
exit 126
`;
  }
  // Pieces come while recovery runs; a hard link is enough, because nobody writes to them any more. A restore
  // that was killed must not be finished by its server alone. Where /proc hides others' processes, only the
  // wait ends it.
  return `${head}[ -d /proc/1 ] && [ ! -d /proc/${supervisor} ] && exit 126
echo "$1" >"$wal/wanted.new" && mv "$wal/wanted.new" "$wal/wanted" || exit 126
tries=0
while :; do
  complete=
  [ -f "$wal/complete" ] && complete=yes
  if [ -f "$wal/$1" ]; then
    rm -f "$2"
    ln "$wal/$1" "$2" 2>/dev/null || cp "$wal/$1" "$2" || exit 126
    exit 0
  fi
  [ -f "$wal/$1.gone" ] && exit 126
  [ -n "$complete" ] && exit 1
  case $1 in *.history) exit 1 ;; esac
  [ -d /proc/1 ] && [ ! -d /proc/${supervisor} ] && exit 126
  tries=$((tries + 1))
  [ "$tries" -gt 12000 ] && exit 126
  sleep 0.05
done
`;
}

/** `'…'` for a POSIX shell. */
export function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** tablespace_map with other places. Lines are `<oid> <path>`, where a backslash keeps a line break in the path. */
export function tablespaceMap(places: ReadonlyMap<string, string>): string {
  return [...places].map(([oid, place]) => `${oid} ${place.replace(/[\\\n\r]/g, '\\$&')}\n`).join('');
}

/** For the note that stays in a restored folder. */
export const recoverySettingsNote = `It is cut off from the world of the original server, so that two servers cannot harm each other: it archives
nothing, replicates to and from nobody, waits for no standby, runs no scheduled jobs, listens on 127.0.0.1 and
on a socket in a folder that only its own user can enter, and it needs no password there. All these settings
are in postgresql.auto.conf, below the line "Set by Holdfast".`;
