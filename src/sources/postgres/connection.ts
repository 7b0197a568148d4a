/**
 * How to reach a PostgreSQL server: URLs, keyword strings and objects with the environment as fallback, read as
 * libpq reads them (PostgreSQL documentation, "Connection Strings", "Environment Variables"). What libpq knows
 * and Holdfast does not support is refused by name, never ignored.
 */
import { existsSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import { type ConnectionKeywords, readKeywords } from './connection-keywords.ts';
import { lookUpPassword } from './password-file.ts';
import { Secret } from './secret.ts';

export { Secret } from './secret.ts';

export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

/** A resolved address with everything needed to connect. Safe to print and to copy: the password is a `Secret`. */
export interface ConnectionSettings {
  /** Host name or address, or an absolute folder with the server's Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: Secret | undefined;
  /** Why a password file that exists was not used; told when authentication fails. */
  readonly passwordNote: string | undefined;
  readonly sslMode: SslMode;
  /** True when sslmode was said, not defaulted. */
  readonly sslModeExplicit: boolean;
  /** Files; `sslRootCert` may be `system`. */
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  /** SCRAM bound to the TLS connection: never, when both sides can, always. */
  readonly channelBinding: 'disable' | 'prefer' | 'require';
  readonly applicationName: string;
  /** Server command-line options, `-c name=value …`. */
  readonly options: string | undefined;
  /** Milliseconds until a connection must stand, authentication included. */
  readonly connectTimeoutMs: number;
  /** TCP keep-alive: idle time before the first probe, time between probes, and how many may stay unanswered. */
  readonly keepAlive: boolean;
  readonly keepAliveIdleMs: number;
  readonly keepAliveIntervalMs: number;
  readonly keepAliveCount: number;
  /** Milliseconds without use, and since connecting, after which a kept connection is replaced (`isStale`). */
  readonly idleTimeoutMs: number;
  readonly maxAgeMs: number;
}

/** What the environment says; `process.env` fits. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads an address. `input`: a URL (`postgres://user@host/db?sslmode=require`), a keyword string
 * (`host=… dbname=…`), or an object with libpq's keywords, or their camelCase and Holdfast's own
 * (`connectTimeout`, `keepAlive`, `idleTimeout`, `maxAge`: seconds). What it leaves out comes from PGHOST and
 * the other variables in `env`, the password file, and libpq's defaults. Reads the password file, nothing else.
 * Throws `postgres.invalid-address`, never with the password in the message.
 */
export function parseConnection(
  input: string | Readonly<Record<string, unknown>>,
  env: Environment = {},
): ConnectionSettings {
  const given = readKeywords(input, env);
  const port = wholeNumber(given, 'port', 5432, 1, 65_535);
  const host = given.host ?? defaultHost(port);
  if (/,/.test(host)) {
    throw invalid('it names several hosts, and Holdfast takes one', 'Name the one server to back up.');
  }
  const user = given.user ?? userInfo().username;
  const database = given.dbname ?? user;
  const found =
    given.password === undefined ? lookUpPassword({ host, port, user, database }, given, env) : {};
  return {
    host,
    port,
    user,
    database,
    password: given.password === undefined ? found.password : new Secret(given.password),
    passwordNote: found.note,
    ...readTls(given, env),
    applicationName: given.application_name ?? given.fallback_application_name ?? 'holdfast',
    options: given.options,
    connectTimeoutMs: seconds(given, 'connect_timeout', 10),
    keepAlive: (given.keepalives ?? '1') !== '0',
    keepAliveIdleMs: seconds(given, 'keepalives_idle', 30),
    keepAliveIntervalMs: seconds(given, 'keepalives_interval', 10),
    keepAliveCount: wholeNumber(given, 'keepalives_count', 3, 0, 127) || 3,
    idleTimeoutMs: seconds(given, 'idle_timeout', 300),
    maxAgeMs: seconds(given, 'max_age', 3600),
  };
}

/** `postgres://user@host:5432/db`, or with the socket's folder as libpq writes it. Never a secret. */
export function describeConnection(
  settings: Pick<ConnectionSettings, 'host' | 'port' | 'user' | 'database'>,
): string {
  const { host, port, user, database } = settings;
  const part = encodeURIComponent;
  if (isSocketFolder(host)) return `postgres://${part(user)}@/${part(database)}?host=${host}&port=${port}`;
  return `postgres://${part(user)}@${host.includes(':') ? `[${host}]` : host}:${port}/${part(database)}`;
}

/** True when `host` is the folder of a Unix socket (or an abstract one, `@name`). */
export function isSocketFolder(host: string): boolean {
  return host.startsWith('/') || host.startsWith('@');
}

function readTls(given: ConnectionKeywords, env: Environment) {
  const modes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
  const system = given.sslrootcert === 'system';
  const sslMode = oneOf(given, 'sslmode', modes, system ? 'verify-full' : 'prefer');
  if (system && sslMode !== 'verify-full') {
    throw invalid(`sslrootcert=system needs sslmode=verify-full, not ${sslMode}`, 'Say sslmode=verify-full.');
  }
  const folder = join(env.HOME ?? homedir(), '.postgresql');
  const usual = (name: string) => (existsSync(join(folder, name)) ? join(folder, name) : undefined);
  const sslRootCert = given.sslrootcert ?? usual('root.crt');
  if (sslMode.startsWith('verify-') && sslRootCert === undefined) {
    throw invalid(
      `sslmode=${sslMode} needs a root certificate to check against, and there is none`,
      `Say sslrootcert=FILE (the certificate of the authority that signed the server's), or sslrootcert=system.`,
    );
  }
  const sslCert = given.sslcert ?? usual('postgresql.crt');
  return {
    sslMode,
    sslModeExplicit: given.sslmode !== undefined,
    sslRootCert,
    sslCert,
    sslKey: given.sslkey ?? (sslCert === undefined ? undefined : usual('postgresql.key')),
    channelBinding: oneOf(given, 'channel_binding', ['disable', 'prefer', 'require'] as const, 'prefer'),
  };
}

/** libpq is built with one default folder; there is no one value for all systems, so the one in use is taken. */
function defaultHost(port: number): string {
  const folders = ['/var/run/postgresql', '/tmp'];
  return folders.find((folder) => existsSync(join(folder, `.s.PGSQL.${port}`))) ?? 'localhost';
}

function oneOf<const T extends string>(
  given: ConnectionKeywords,
  name: keyof ConnectionKeywords,
  allowed: readonly T[],
  fallback: T,
): T {
  const value = given[name];
  if (value === undefined) return fallback;
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw invalid(`${name} is "${value}"`, `Use one of ${allowed.join(', ')}.`);
  return found;
}

function wholeNumber(
  given: ConnectionKeywords,
  name: keyof ConnectionKeywords,
  fallback: number,
  least: number,
  most: number,
): number {
  const text = given[name];
  if (text === undefined) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value < least || value > most) {
    throw invalid(`${name} is "${text}"`, `Give a whole number from ${least} to ${most}.`);
  }
  return value;
}

/** Seconds to milliseconds. libpq takes 0 for "no limit"; here every wait has one, so 0 is the default. */
function seconds(given: ConnectionKeywords, name: keyof ConnectionKeywords, fallback: number): number {
  return (wholeNumber(given, name, fallback, 0, 2_000_000) || fallback) * 1000;
}

function invalid(problem: string, next: string): HoldfastError {
  return new HoldfastError(
    'postgres.invalid-address',
    `The address of the PostgreSQL server cannot be used: ${problem}.`,
    {
      next,
    },
  );
}
