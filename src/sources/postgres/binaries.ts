/** Finds installations of PostgreSQL on this machine. */
import { constants } from 'node:fs';
import { access, readdir, realpath } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import { runProgram } from './server-user.ts';

/** A folder with at least `postgres` and `pg_ctl` of one version. */
export interface Binaries {
  readonly binDir: string;
  /** E.g. `15.18`. */
  readonly version: string;
  readonly major: number;
}

export interface FindOptions {
  /** Folders (with the programs, or with a `bin` folder below) to look at first. */
  readonly extra?: readonly string[];
  readonly signal?: AbortSignal;
}

/**
 * The newest installation of that major version, or undefined. An installation counts when its `postgres`
 * runs and says that it is of that version.
 */
export async function findBinaries(major: number, options: FindOptions = {}): Promise<Binaries | undefined> {
  const extra = options.extra ?? [];
  // A folder that was named is meant, whatever else is newer.
  const named = extra.flatMap((folder) => [folder, join(folder, 'bin')]);
  for (const folders of [named, await usualFolders(options.signal)]) {
    const found = await installationsIn(folders, options.signal);
    const newest = found
      .filter((binaries) => binaries.major === major)
      .sort((a, b) => Number(b.version.split('.')[1] ?? 0) - Number(a.version.split('.')[1] ?? 0))[0];
    if (newest !== undefined) return newest;
  }
  return undefined;
}

/** As `findBinaries`, but throws `recovery.no-server-binaries`, saying what to install. */
export async function requireBinaries(major: number, options: FindOptions = {}): Promise<Binaries> {
  const found = await findBinaries(major, options);
  if (found !== undefined) return found;
  const others = (await findAllBinaries(options)).map(({ version, binDir }) => `${version} in ${binDir}`);
  const there = others.length === 0 ? 'there is no PostgreSQL' : `there is only ${others.join(', ')}`;
  throw new HoldfastError(
    'recovery.no-server-binaries',
    `PostgreSQL ${major} is needed to start this server, and ${there} on this machine. Data files of one major version can be read by that version only.`,
    {
      next: `Install it (Debian, Ubuntu: \`apt-get install postgresql-${major}\`; Red Hat: \`dnf install postgresql${major}-server\`; macOS: \`brew install postgresql@${major}\`) and run the command again. If it is installed in a folder of its own, put its bin folder on PATH.`,
      details: { major, found: others },
    },
  );
}

/** Every installation found, each once. */
export async function findAllBinaries(options: FindOptions = {}): Promise<Binaries[]> {
  const named = (options.extra ?? []).flatMap((folder) => [folder, join(folder, 'bin')]);
  return installationsIn([...named, ...(await usualFolders(options.signal))], options.signal);
}

async function installationsIn(
  folders: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Binaries[]> {
  const seen = new Set<string>();
  const found: Binaries[] = [];
  for (const folder of folders) {
    // A folder may hold links to some of the programs only: the real one has all that was installed.
    const program = await realpath(join(folder, 'postgres')).catch(absent(undefined));
    if (program === undefined) continue;
    const binDir = dirname(program);
    if (seen.has(binDir)) continue;
    seen.add(binDir);
    const version = await versionOf(binDir, signal);
    if (version !== undefined) found.push({ binDir, version, major: Number.parseInt(version, 10) });
  }
  return found;
}

async function usualFolders(signal: AbortSignal | undefined): Promise<string[]> {
  const folders: string[] = [];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) if (folder !== '') folders.push(folder);
  const asked = await runProgram('pg_config', ['--bindir'], { deadlineMs: 10_000, signal });
  if (asked.status === 0 && asked.stdout.trim() !== '') folders.push(asked.stdout.trim());
  // Debian; Red Hat (PGDG); macOS installers; Homebrew on Intel and Apple silicon; source builds.
  folders.push(...(await children('/usr/lib/postgresql', /./, 'bin')));
  folders.push(...(await children('/usr', /^pgsql-\d+$/, 'bin')));
  folders.push(...(await children('/Library/PostgreSQL', /./, 'bin')));
  folders.push(...(await children('/Applications/Postgres.app/Contents/Versions', /./, 'bin')));
  folders.push(...(await children('/opt/homebrew/opt', /^postgresql(@\d+)?$/, 'bin')));
  folders.push(...(await children('/usr/local/opt', /^postgresql(@\d+)?$/, 'bin')));
  folders.push('/usr/local/pgsql/bin', '/usr/local/bin', '/usr/bin');
  return folders;
}

async function children(folder: string, name: RegExp, below: string): Promise<string[]> {
  const names = await readdir(folder).catch(absent<string[]>([]));
  return names.filter((entry) => name.test(entry)).map((entry) => join(folder, entry, below));
}

async function versionOf(binDir: string, signal: AbortSignal | undefined): Promise<string | undefined> {
  for (const program of ['postgres', 'pg_ctl']) {
    const there = await access(join(binDir, program), constants.X_OK).then(() => true, absent(false));
    if (!there) return undefined;
  }
  const { stdout } = await runProgram(join(binDir, 'postgres'), ['--version'], {
    deadlineMs: 10_000,
    signal,
  });
  return /^postgres \(PostgreSQL\) (\d+(?:\.\d+)?)/.exec(stdout)?.[1];
}

/** Looking for programs: a folder that is not there or closed to us holds none that could be used. */
function absent<T>(value: T): (error: unknown) => T {
  return () => value;
}
