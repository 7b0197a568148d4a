/**
 * The part of a configuration that `wal push` and `wal fetch` need, kept resolved, so that a process that lives for a
 * tenth of a second reads no YAML and checks no schema. Holds no secrets. Thrown away as soon as the configuration
 * file, the `.env` beside it or a variable that counts has changed.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import type { Configuration } from './configuration.ts';
import { systemErrorCode } from './errors.ts';
import type { LogFormat, LogLevel } from './log.ts';

export interface ResolvedConfiguration {
  readonly repository: string;
  readonly state: string;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  readonly sources: readonly { readonly name: string; readonly kind: string }[];
}

interface Kept extends ResolvedConfiguration {
  readonly schema: 1;
  /** What it was made from. */
  readonly inputs: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The state folder where the configuration names none. */
export function defaultStateFolder(env: Environment): string {
  const given = env.HOLDFAST_STATE;
  if (given) return resolve(given);
  if (process.getuid?.() === 0) return '/var/lib/holdfast';
  const xdg = env.XDG_STATE_HOME;
  // The XDG rules say to ignore a relative path.
  return xdg && isAbsolute(xdg) ? join(xdg, 'holdfast') : join(homedir(), '.local', 'state', 'holdfast');
}

/** The configuration file that a command without `--config` uses; null where there is none. Does not read it. */
export async function findConfigurationFile(
  given: string | undefined,
  env: Environment,
  cwd: string,
): Promise<string | null> {
  const named = given ?? (env.HOLDFAST_CONFIG || undefined);
  if (named !== undefined) return resolve(cwd, named);
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const candidate = join(folder, 'holdfast.yaml');
    if (await isFile(candidate)) return candidate;
    if (dirname(folder) === folder) return null;
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    // A folder above that this user may not look into holds no configuration for this user.
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(systemErrorCode(error) ?? '')) return false;
    throw error;
  }
}

function placeOf(file: string, env: Environment): string {
  const name = createHash('sha256').update(file).digest('hex').slice(0, 32);
  return join(defaultStateFolder(env), 'resolved', `${name}.json`);
}

/** Identity of everything that the kept values came from; changes with any of it. */
async function inputsOf(file: string, env: Environment): Promise<string> {
  const marks = await Promise.all([file, join(dirname(file), '.env')].map(markOf));
  return JSON.stringify([...marks, env.HOLDFAST_STATE ?? null, env.XDG_STATE_HOME ?? null]);
}

async function markOf(path: string): Promise<string | null> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw error;
  }
}

/** What was kept for `file`; undefined when there is nothing or something has changed since. */
export async function readResolved(
  file: string,
  env: Environment,
): Promise<ResolvedConfiguration | undefined> {
  let text: string;
  try {
    text = await readFile(placeOf(file, env), 'utf8');
  } catch {
    // Not kept yet, or not for this user: reading the configuration itself is always right.
    return undefined;
  }
  let kept: Partial<Kept>;
  try {
    kept = JSON.parse(text) as Partial<Kept>;
  } catch {
    return undefined;
  }
  if (kept.schema !== 1 || kept.inputs !== (await inputsOf(file, env))) return undefined;
  return kept as Kept;
}

/**
 * Keeps what is needed of `configuration`, where it depends on nothing but its file. Never fails: the next command
 * tries again.
 */
export async function keepResolved(configuration: Configuration, env: Environment): Promise<void> {
  const { file, repository, state, log, sources, origins } = configuration;
  const from = [origins.repository, origins['repository.address'], origins.state];
  if (file === null || from.some(isFromElsewhere)) return;
  const place = placeOf(file, env);
  try {
    const kept: Kept = {
      schema: 1,
      inputs: await inputsOf(file, env),
      repository,
      state,
      log,
      sources: Object.values(sources).map(({ name, kind }) => ({ name, kind })),
    };
    const text = JSON.stringify(kept);
    if ((await readFile(place, 'utf8').catch(() => '')) === text) return;
    await mkdir(dirname(place), { recursive: true, mode: 0o700 });
    const temporary = `${place}.${process.pid}.tmp`;
    await writeFile(temporary, text, { mode: 0o600 });
    await rename(temporary, place);
  } catch {
    // A read-only or foreign state folder costs a slower start, nothing else.
  }
}

/** Values from variables and the command line may be others next time; HOLDFAST_STATE is among the inputs. */
function isFromElsewhere(origin: string | undefined): boolean {
  return (
    origin !== undefined && /command line|environment|\$|\.env/.test(origin) && !/HOLDFAST_STATE/.test(origin)
  );
}
