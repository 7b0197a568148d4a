/** The data directory of a source on this host, for a restore in place: found, proven, and whether a server runs in it. */
import type { Stats } from 'node:fs';
import { access, readdir, readFile, readlink, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../../core/errors.ts';
import type { OwnPlaceRequest } from '../source.ts';
import type { ConnectionSettings } from './connection.ts';
import { readControlFile, readServerIdentity } from './data-directory.ts';
import { areaOf, ExchangeArea } from './exchange.ts';
import { parseLineage } from './position.ts';
import type { ServerUser } from './server-user.ts';
import type { PostgresSettings } from './settings.ts';
import { PostgresConnection } from './wire.ts';

export interface PlaceSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** How the server was started, as PostgreSQL itself writes it down. */
export interface StartedAs {
  /** Folder with its programs. */
  readonly binDir: string;
  /** For pg_ctl's `-o`: everything but the data directory. */
  readonly options: string;
}

export interface FoundPlace {
  readonly directory: string;
  /** Owner of the directory where that is not ourselves. */
  readonly owner: ServerUser | undefined;
  readonly pid: number | undefined;
  readonly startedAs: StartedAs | undefined;
  readonly area: string;
  readonly warnings: readonly string[];
}

/** Throws `recovery.place-unusable`. Changes nothing. */
export async function findPlace(
  source: PlaceSource,
  systemId: string | undefined,
  force: boolean,
  signal: AbortSignal,
): Promise<FoundPlace> {
  const named = source.settings.dataDirectory ?? (await askServer(source, signal));
  if (named === undefined) {
    throw unusable(
      source,
      `Where the data directory of ${source.name} is cannot be told: the server does not answer, and the configuration does not say.`,
      'Give it with `dataDirectory` in the configuration of the source.',
    );
  }
  let directory: string;
  let stats: Stats;
  try {
    directory = await realpath(named);
    stats = await stat(directory);
  } catch (error) {
    throw unusable(
      source,
      `${named}, the data directory of ${source.name}, is not on this host, or this user cannot reach it (${systemErrorCode(error)}).`,
      'Run the command on the server’s own host, as the user of the server or as root; where paths differ, give `dataDirectory`.',
      error,
    );
  }
  const owner = await ownerOf(source, directory, stats);
  const area = await areaOf(directory);
  if (systemId !== undefined) await refuseHalfway(source, directory, new ExchangeArea(area.root, owner));
  const warnings = await prove(source, directory, systemId, force, signal);
  const pid = await runningIn(directory);
  if (area.inside) {
    warnings.push(
      `${directory} is a mount point, or its parent is closed to this user: what is there now is kept inside of it, in .holdfast, and later snapshots hold that too until it is deleted.`,
    );
  }
  if (await isLink(join(directory, 'pg_wal'))) {
    warnings.push('pg_wal is a link to another folder; afterwards it lies inside the data directory.');
  }
  return { directory, owner, pid, startedAs: await startedAs(directory), area: area.root, warnings };
}

/** What is half of one state and half of another must become whole first. */
async function refuseHalfway(source: PlaceSource, directory: string, area: ExchangeArea): Promise<void> {
  if (!(await area.journals()).some(({ state }) => state === 'moving')) return;
  throw unusable(
    source,
    `An earlier exchange of ${directory} was interrupted: no server can start there as it is.`,
    `Bring back what was there first: holdfast restore ${source.name} --undo`,
  );
}

export function placeRequest(request: OwnPlaceRequest): {
  systemId: string;
  force: boolean;
  signal: AbortSignal;
} {
  const { systemId } = parseLineage(request.lineage);
  return { systemId, force: request.force, signal: request.signal };
}

async function askServer(source: PlaceSource, signal: AbortSignal): Promise<string | undefined> {
  let sql: PostgresConnection;
  try {
    sql = await PostgresConnection.connect(source.connection, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (isHoldfastError(error)) return undefined;
    throw error;
  }
  try {
    return (await readServerIdentity(sql, signal)).dataDirectory ?? undefined;
  } finally {
    await sql.close();
  }
}

async function ownerOf(
  source: PlaceSource,
  directory: string,
  stats: Stats,
): Promise<ServerUser | undefined> {
  const us = process.getuid?.();
  if (us !== 0) {
    if (stats.uid === us) return undefined;
    throw unusable(
      source,
      `${directory} belongs to the user with the id ${stats.uid}, and this is ${us}.`,
      'Run the command as that user, or as root.',
    );
  }
  if (stats.uid === 0) {
    throw unusable(
      source,
      `${directory} belongs to root, as which PostgreSQL does not run.`,
      `Give it to the server's user: chown postgres ${directory}`,
    );
  }
  const line = (await readFile('/etc/passwd', 'utf8'))
    .split('\n')
    .map((text) => text.split(':'))
    .find((fields) => Number(fields[2]) === stats.uid);
  return { name: line?.[0] ?? String(stats.uid), uid: stats.uid, gid: stats.gid };
}

/** An empty directory has nothing to lose; anything else must show that it is this source's, or be forced. */
async function prove(
  source: PlaceSource,
  directory: string,
  systemId: string | undefined,
  force: boolean,
  signal: AbortSignal,
): Promise<string[]> {
  const names = (await readdir(directory)).filter((name) => name !== '.holdfast' && name !== 'lost+found');
  if (names.length === 0 || systemId === undefined) return [];
  if (names.includes('standby.signal')) {
    throw unusable(
      source,
      `The server in ${directory} is a standby: restored alone, it would part from its primary.`,
      'Restore the primary, and build the standby anew from it.',
    );
  }
  let found: string | undefined;
  try {
    found = (await readControlFile(directory, signal)).systemId;
  } catch (error) {
    signal.throwIfAborted();
    const damaged = isHoldfastError(error, 'postgres.data-directory') || systemErrorCode(error) === 'ENOENT';
    if (!damaged) throw error;
  }
  if (found === systemId) return [];
  if (found !== undefined) {
    throw unusable(
      source,
      `${directory} holds another cluster: its system identifier is ${found}, that of ${source.name} in the repository is ${systemId}.`,
      'Correct `dataDirectory`, or restore into a new folder with `--to`.',
    );
  }
  if (force && names.includes('PG_VERSION')) {
    return [
      `${directory} has no sound pg_control: that it is the cluster of ${source.name} is only believed.`,
    ];
  }
  throw unusable(
    source,
    `${directory} has no sound pg_control, so that nothing proves that it is the cluster of ${source.name}.`,
    'When you are sure that it is, run the command with `--force`; nothing in it is deleted, only moved aside.',
  );
}

/** The process of a server that runs in the directory. A number left by a crash may be another program's by now. */
export async function runningIn(directory: string): Promise<number | undefined> {
  let pid: number;
  try {
    pid = Number.parseInt(await readFile(join(directory, 'postmaster.pid'), 'utf8'), 10);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  if (!(pid > 0)) return undefined;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (systemErrorCode(error) === 'ESRCH') return undefined;
    if (systemErrorCode(error) !== 'EPERM') throw error;
  }
  try {
    // A server works in its data directory.
    return (await readlink(`/proc/${pid}/cwd`)) === directory ? pid : undefined;
  } catch (error) {
    // Another system than Linux, or not ours to look at: then the number is believed.
    return systemErrorCode(error) === 'ENOENT' && (await isProc()) ? undefined : pid;
  }
}

async function isProc(): Promise<boolean> {
  return access('/proc/self').then(
    () => true,
    () => false,
  );
}

async function isLink(path: string): Promise<boolean> {
  return readlink(path).then(
    () => true,
    () => false,
  );
}

/** postmaster.opts: the program, then each argument in double quotes. */
async function startedAs(directory: string): Promise<StartedAs | undefined> {
  let text: string;
  try {
    text = (await readFile(join(directory, 'postmaster.opts'), 'utf8')).trim();
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const program = /^(\S+)/.exec(text)?.[1];
  if (program === undefined || !program.startsWith('/')) return undefined;
  const args = [...text.slice(program.length).matchAll(/"((?:[^"\\]|\\.)*)"/g)].map((match) => match[0]);
  const own = args.indexOf('"-D"');
  const options = own < 0 ? args : [...args.slice(0, own), ...args.slice(own + 2)];
  return { binDir: dirname(program), options: options.join(' ') };
}

export function unusable(
  source: { readonly name: string },
  message: string,
  next: string,
  cause?: unknown,
): HoldfastError {
  return new HoldfastError('recovery.place-unusable', message, {
    next,
    cause,
    details: { source: source.name },
  });
}
