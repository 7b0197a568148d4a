/**
 * The configuration: found, read, checked and merged once, then frozen.
 *
 * From a `holdfast.yaml`, or without one from well-known environment variables (zero configuration).
 */
import { readFile, stat } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { type ConfigSource, checkConfiguration, invalidConfiguration } from './config-check.ts';
import { readDocument } from './config-document.ts';
import type {
  Configuration,
  LoadOptions,
  SourceConfiguration,
  Variable,
  Variables,
} from './configuration.ts';
import { HoldfastError, systemErrorCode } from './errors.ts';
import { isSecretName, Secrets } from './redaction.ts';
import { defaultStateFolder, findConfigurationFile } from './resolved-config.ts';

export type { Configuration, KeySettings, LoadOptions, SourceConfiguration } from './configuration.ts';

/**
 * Finds and reads the configuration.
 * @throws `config.none`, `config.invalid` (all mistakes at once, each with file, line and column),
 * `config.unreadable`, `config.unsupported-variable`.
 */
export async function loadConfiguration(options: LoadOptions): Promise<Configuration> {
  const cwd = options.cwd ?? process.cwd();
  const env = options.env ?? process.env;
  const secrets = options.secrets ?? new Secrets();
  const file = await findConfigurationFile(options.path, env, cwd);
  const base = file === null ? cwd : dirname(file);
  const variables = await readVariables(base, env);
  for (const [name, { value }] of Object.entries(variables)) {
    // Shorter ones are too often switches (SOME_KEY=1); what the configuration uses is added by its setting.
    if (isSecretName(name) && value.length >= 6) secrets.add(value);
  }
  const source =
    file === null ? fromVariables(variables, options, base) : await fromFile(file, variables, cwd);
  const checked = checkConfiguration(source, { ...options, secrets, base });
  const { value, origins } = checked;
  return deepFreeze({
    file,
    repository: absolute(value.repository, base),
    key: {
      ...value.key,
      ...(value.key.passphraseFile === undefined
        ? {}
        : { passphraseFile: resolve(base, value.key.passphraseFile) }),
      ...(value.key.identityFile === undefined
        ? {}
        : { identityFile: resolve(base, value.key.identityFile) }),
    },
    state: value.state === undefined ? defaultStateFolder(valuesOf(variables)) : resolve(base, value.state),
    timezone: value.timezone,
    environment: value.environment ?? null,
    log: value.log,
    sources: value.sources,
    origins,
  });
}

/** One configured source; the only one where no name is given. @throws `config.unknown-source` */
export function configuredSource(configuration: Configuration, name?: string): SourceConfiguration {
  const names = Object.keys(configuration.sources);
  const listed = names.length === 0 ? 'No source is configured' : `Configured: ${names.join(', ')}`;
  const wanted = name ?? (names.length === 1 ? names[0] : undefined);
  if (wanted === undefined) {
    throw new HoldfastError('config.unknown-source', `Which source is meant? ${listed}.`, {
      next:
        names.length === 0 ? 'Add one under `sources` in the configuration.' : 'Give the name of one source.',
    });
  }
  const found = Object.hasOwn(configuration.sources, wanted) ? configuration.sources[wanted] : undefined;
  if (found === undefined) {
    throw new HoldfastError('config.unknown-source', `No source is called ${wanted}. ${listed}.`);
  }
  return found;
}

/**
 * Throws where the source's settings need variables that are not set. To be called before a source is opened: what
 * only reads the repository must work on hosts that have no secret of the source.
 * @throws `config.invalid`
 */
export function requireComplete({ missing }: SourceConfiguration): void {
  if (missing !== undefined) throw invalidConfiguration(missing);
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

async function readVariables(base: string, env: NodeJS.ProcessEnv): Promise<Variables> {
  const variables: Record<string, Variable> = {};
  const path = join(base, '.env');
  if (await isFile(path)) {
    for (const [name, value] of Object.entries(parseEnv(await readText(path)))) {
      if (value !== undefined) variables[name] = { value, from: path };
    }
  }
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined) variables[name] = { value, from: 'environment' };
  }
  return variables;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const code = systemErrorCode(error);
    const why =
      code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'this user may not read it' : code;
    throw new HoldfastError('config.unreadable', `Could not read ${path}: ${why ?? String(error)}.`, {
      details: { path },
      cause: error,
    });
  }
}

async function fromFile(file: string, variables: Variables, cwd: string): Promise<ConfigSource> {
  const document = readDocument(await readText(file), (name) =>
    Object.hasOwn(variables, name) ? variables[name]?.value : undefined,
  );
  const short = relative(cwd, file);
  return { label: short === '' || short.startsWith('..') ? file : short, document, variables };
}

// Known names that mean a promise which this version cannot keep.
const unsupported: Readonly<Record<string, string>> = {
  REDIS_URL: 'Redis is not supported by this version',
  MONGODB_URL: 'MongoDB is not supported by this version',
  AWS_S3_BUCKET: 'repositories in S3 are not supported by this version',
  BACKUP_RETENTION_DAYS: 'this version deletes no old snapshots',
  BACKUP_NOTIFY_EMAIL: 'this version sends no notifications',
};

const smallest = `holdfast.yaml:
  repository: /var/backups/app
  key:
    passphrase: \${BACKUP_ENCRYPTION_KEY}
  sources:
    app:
      kind: postgres
      url: postgres://user@host:5432/app
Or, without a file, the environment or a .env in this folder:
  DATABASE_URL=postgres://user@host:5432/app
  BACKUP_DIR=/var/backups/app
  BACKUP_ENCRYPTION_KEY=<a long passphrase>`;

function fromVariables(variables: Variables, options: LoadOptions, cwd: string): ConfigSource {
  const set = (name: string) =>
    Object.hasOwn(variables, name) ? variables[name]?.value || undefined : undefined;
  for (const [name, why] of Object.entries(unsupported)) {
    if (set(name) === undefined) continue;
    throw new HoldfastError(
      'config.unsupported-variable',
      `${name} is set (${variables[name]?.from}), but ${why}.`,
      {
        next: `Run the command with \`env -u ${name}\`, or write a holdfast.yaml: then only what it names counts.`,
        details: { variable: name },
      },
    );
  }
  const [url, folder, passphrase] = [set('DATABASE_URL'), set('BACKUP_DIR'), set('BACKUP_ENCRYPTION_KEY')];
  if (folder === undefined && options.repository === undefined) {
    const what =
      url === undefined && passphrase === undefined
        ? ''
        : ' BACKUP_DIR, the folder of the repository, is not set.';
    throw new HoldfastError(
      'config.none',
      `No configuration was found: no holdfast.yaml in ${cwd} or above, and no environment variables that say enough.${what}`,
      { next: `Write the smallest ${smallest}` },
    );
  }
  const kind = url === undefined ? null : kindOf(url, options.kinds);
  const value = {
    repository: folder ?? options.repository,
    key: passphrase === undefined ? {} : { passphrase },
    sources: kind === null ? {} : { [kind]: { kind, url } },
  };
  return { label: null, document: { value }, variables };
}

const schemes: Readonly<Record<string, string>> = { 'postgres:': 'postgres', 'postgresql:': 'postgres' };

function kindOf(url: string, kinds: LoadOptions['kinds']): string {
  const scheme = /^[a-z][a-z0-9+.-]*:/i.exec(url)?.[0].toLowerCase() ?? '';
  const kind = schemes[scheme];
  if (kind !== undefined && Object.hasOwn(kinds, kind)) return kind;
  throw new HoldfastError(
    'config.invalid',
    `DATABASE_URL ${scheme === '' ? 'is no URL' : `starts with ${scheme}, which names no supported database`}.`,
    {
      next: 'Write DATABASE_URL as postgres://user:password@host:5432/database.',
      details: { variable: 'DATABASE_URL' },
    },
  );
}

/** A path becomes absolute; an address with a scheme stays. */
function absolute(address: string, base: string): string {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(address) ? address : resolve(base, address);
}

/** Without where they came from. */
function valuesOf(variables: Variables): Record<string, string> {
  return Object.fromEntries(Object.entries(variables).map(([name, { value }]) => [name, value]));
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value) && !ArrayBuffer.isView(value)) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}
