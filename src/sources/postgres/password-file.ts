/** The password file of libpq (PostgreSQL documentation, "The Password File"). */
import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { Secret } from './secret.ts';

interface Place {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/**
 * Looks in `passfile`, else PGPASSFILE (already in `given`), else ~/.pgpass. A file that others can read is not
 * used, as with libpq; the note says so, because the failed log-in that follows would not.
 */
export function lookUpPassword(
  place: Place,
  given: { readonly passfile?: string | undefined },
  env: Readonly<Record<string, string | undefined>>,
): { password?: Secret; note?: string } {
  const path = given.passfile ?? join(env.HOME ?? homedir(), '.pgpass');
  let text: string;
  try {
    const facts = statSync(path);
    if (!facts.isFile()) return { note: `The password file ${path} was not used: it is not a plain file.` };
    if ((facts.mode & 0o077) !== 0) {
      return {
        note: `The password file ${path} was not used: other users can read it. Mend it with: chmod 600 ${path}`,
      };
    }
    if (facts.size > 1024 * 1024)
      return { note: `The password file ${path} was not used: it is larger than 1 MiB.` };
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return {};
    if (code === 'EACCES')
      return { note: `The password file ${path} was not used: this user may not read it.` };
    throw new HoldfastError('postgres.invalid-address', `The password file ${path} could not be read.`, {
      cause: error,
    });
  }
  const password = passwordFor(place, text);
  return password === undefined ? {} : { password: new Secret(password) };
}

/** The first line whose `host:port:database:user` fits; `*` fits all, `\` escapes. */
export function passwordFor(place: Place, text: string): string | undefined {
  const host = place.host.startsWith('/') || place.host.startsWith('@') ? 'localhost' : place.host;
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    const fields = splitLine(line);
    if (fields === undefined) continue;
    const fits = (index: number, ...values: string[]) =>
      fields[index] === '*' || values.includes(fields[index]!);
    if (
      fits(0, host, place.host) &&
      fits(1, String(place.port)) &&
      fits(2, place.database) &&
      fits(3, place.user)
    ) {
      return fields[4] === '' ? undefined : fields[4];
    }
  }
  return undefined;
}

function splitLine(line: string): string[] | undefined {
  const fields = [''];
  for (let i = 0; i < line.length; i++) {
    const char = line[i]!;
    if (char === '\\' && i + 1 < line.length) fields[fields.length - 1] += line[++i]!;
    else if (char === ':' && fields.length < 5) fields.push('');
    else fields[fields.length - 1] += char;
  }
  return fields.length === 5 ? fields : undefined;
}
