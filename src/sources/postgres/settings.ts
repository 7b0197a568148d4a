/** What a PostgreSQL source can be configured with. */
import { z } from 'zod';
import { HoldfastError } from '../../core/errors.ts';
import { type ConnectionSettings, type Environment, parseConnection } from './connection.ts';
import { readKeywords } from './connection-keywords.ts';

const text = z.string().min(1, 'must not be empty');
const seconds = (least: number, most: number) => z.number().min(least).max(most);

/** The kind's part of the configuration; every default and limit is in its description. */
export const postgresSettings = z.object({
  url: text
    .optional()
    .describe(
      'Address of the server: `postgres://user:password@host:5432/database?sslmode=require`. What neither it nor the settings below say comes from the PG… variables, `~/.pgpass` and libpq’s defaults.',
    ),
  host: text.optional().describe('Host name or address, or the folder of the server’s Unix socket.'),
  port: z.number().int().min(1).max(65_535).optional().describe('Port of the server. Default 5432.'),
  user: text
    .optional()
    .describe('Role to connect as; it needs LOGIN, REPLICATION and membership in pg_read_all_settings.'),
  password: text.optional().describe('Password of the role; write it as `${NAME}` or use `passfile`.'),
  passfile: text.optional().describe('A password file in libpq’s form. Default `~/.pgpass`.'),
  database: text
    .optional()
    .describe('Database for ordinary statements (heartbeat, settings). Default: the role’s name.'),
  sslMode: z
    .enum(['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'])
    .optional()
    .describe('How TLS is used and what is checked. Default `prefer`; use `verify-full` over networks.'),
  sslRootCert: text.optional().describe('File with the authority’s certificate, or `system`.'),
  sslCert: text.optional().describe('File with the client’s certificate.'),
  sslKey: text.optional().describe('File with the client’s key.'),
  connectTimeout: z
    .number()
    .int()
    .min(1)
    .max(600)
    .optional()
    .describe('Seconds until a connection must stand. Default 10.'),
  slot: z
    .string()
    .regex(/^[a-z0-9_]{1,63}$/, 'must be 1 to 63 of a-z, 0-9 and _')
    .optional()
    .describe('Physical replication slot of the capture. Default `holdfast_` and the name of the source.'),
  heartbeat: z
    .union([seconds(1, 3600), z.literal('off')])
    .default(10)
    .describe(
      'After this many seconds without a commit a small message is written into the log, so that an idle server’s recovery window moves on. `off` for none.',
    ),
  // Half of the second that log may be late at most: the other half is for sealing and storing on a busy host.
  partInterval: seconds(0.05, 60)
    .default(0.5)
    .describe(
      'Seconds after which received log is closed into a part and stored. Smaller loses less, stores more objects.',
    ),
  partSize: z
    .number()
    .int()
    .min(1)
    .max(64)
    .default(16)
    .describe('MiB at which a part is closed before its time.'),
  maxRate: z
    .number()
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe('MiB a second that a snapshot may read from the server. Default: no limit.'),
  snapshot: z
    .enum(['auto', 'local', 'remote'])
    .default('auto')
    .describe(
      'How a snapshot is taken: `local` reads the data directory on this host, fast and only what changed; `remote` needs nothing but the connection; `auto` reads locally where that is possible.',
    ),
  dataDirectory: z
    .string()
    .regex(/^\//, 'must be an absolute path')
    .optional()
    .describe(
      'Path of the server’s data directory as this host sees it, where that differs from what the server says (containers). Default: ask the server.',
    ),
  stop: z
    .array(text)
    .min(1)
    .optional()
    .describe(
      'Program and arguments that stop the server for a restore in place, e.g. `[systemctl, stop, postgresql@15-main]`; run without a shell. Default: `pg_ctl`.',
    ),
  start: z
    .array(text)
    .min(1)
    .optional()
    .describe(
      'Program and arguments that start the server after a restore in place. Default: `pg_ctl`, as it was started before.',
    ),
  checkpoint: z
    .enum(['fast', 'spread'])
    .default('fast')
    .describe(
      '`fast` starts a snapshot with an immediate checkpoint; `spread` spares the disks and can take minutes to start.',
    ),
});

export type PostgresSettings = z.output<typeof postgresSettings>;

/** The address in the settings. Reads the password file. Throws `postgres.invalid-address`. */
export function connectionOf(settings: PostgresSettings, env: Environment = process.env): ConnectionSettings {
  const { url, host, port, user, password, passfile, database } = settings;
  const { sslMode, sslRootCert, sslCert, sslKey, connectTimeout } = settings;
  return parseConnection(
    {
      ...{ url, host, port, user, password, passfile, database },
      ...{ sslMode, sslRootCert, sslCert, sslKey, connectTimeout },
    },
    env,
  );
}

/** The database that settings name, also where other variables in them miss; undefined where they name none. */
export function databaseOf(settings: unknown): string | undefined {
  if (typeof settings !== 'object' || settings === null) return undefined;
  const { url, database } = settings as { readonly url?: unknown; readonly database?: unknown };
  const named = typeof database === 'string' ? database : databaseIn(url);
  // What stands for a variable that misses is no name.
  return named === undefined || named === '' || named.includes('${') ? undefined : named;
}

function databaseIn(url: unknown): string | undefined {
  if (typeof url !== 'string') return undefined;
  try {
    return readKeywords(url, {}).dbname;
  } catch (error) {
    // Restoring needs no address that is right: the error is for whoever connects to it.
    if (error instanceof HoldfastError) return undefined;
    throw error;
  }
}

/** The name of the capture's slot. */
export function slotName(source: string, settings: Pick<PostgresSettings, 'slot'>): string {
  return settings.slot ?? `holdfast_${source.replaceAll('-', '_')}`;
}
