/** What a person should know of this machine before a snapshot is restored on it. Looks, changes nothing. */
import type { OpenedSnapshot } from '../../repository/contract.ts';
import { findBinaries } from './binaries.ts';
import { runProgram } from './server-user.ts';
import { openSnapshotMeta } from './snapshot-meta.ts';

/** Sentences; empty when this machine is like the source's. */
export async function foresee(
  snapshot: OpenedSnapshot,
  programs: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  const meta = openSnapshotMeta(snapshot.meta);
  const major = Math.floor(meta.version / 10_000);
  const warnings: string[] = [];
  const found = await findBinaries(major, { extra: programs, signal });
  if (found === undefined) {
    warnings.push(
      `PostgreSQL ${major} is not on this machine: the files can be restored, but not started here.`,
    );
  }
  const minor = meta.version % 10_000;
  if (found !== undefined && Number(found.version.split('.')[1] ?? 0) < minor) {
    warnings.push(
      `The source ran ${major}.${minor}, this machine has ${found.version}: an older minor release may lack corrections that the data rely on.`,
    );
  }
  if (meta.architecture !== null && meta.architecture !== process.arch) {
    warnings.push(
      `The source ran on ${meta.architecture}, this machine is ${process.arch}: PostgreSQL does not promise that data files can be moved between them.`,
    );
  }
  return [...warnings, ...collationWarnings(meta.collations, await systemLocales(signal), systemLibc())];
}

/** Locales that need nothing of the system. */
const builtIn = /^(C|POSIX|C\.UTF-?8)$/i;

/**
 * `collations`: database → locale and, where the server told it, the version of the C library's collation.
 * `locales`: normalised names that this machine has; undefined where that cannot be told. Pure.
 */
export function collationWarnings(
  collations: Readonly<Record<string, string>>,
  locales: ReadonlySet<string> | undefined,
  libc: string | undefined,
): string[] {
  const absent = new Map<string, string[]>();
  const changed = new Map<string, string[]>();
  for (const [database, text] of Object.entries(collations)) {
    const [locale, version] = text.split(' ') as [string, string | undefined];
    if (builtIn.test(locale)) continue;
    if (locales !== undefined && !locales.has(normal(locale))) add(absent, locale, database);
    else if (version !== undefined && libc !== undefined && /^2\.\d+$/.test(version) && version !== libc) {
      add(changed, version, database);
    }
  }
  return [
    ...[...absent].map(
      ([locale, names]) =>
        `The locale ${locale}, which ${list(names)} needs, is not on this machine: nobody can connect there before it is installed (Debian: dpkg-reconfigure locales).`,
    ),
    ...[...changed].map(
      ([version, names]) =>
        `Text in ${list(names)} was sorted by version ${version} of the C library's collation, this machine has ${libc}: reindex text indexes before relying on them (REINDEX DATABASE).`,
    ),
  ];
}

function add(map: Map<string, string[]>, key: string, database: string): void {
  map.set(key, [...(map.get(key) ?? []), database]);
}

function list(names: readonly string[]): string {
  return names.length > 5 ? `${names.slice(0, 5).join(', ')} and ${names.length - 5} more` : names.join(', ');
}

/** As glibc compares them: `en_US.UTF-8` is `en_US.utf8`. */
function normal(locale: string): string {
  const [name, codeset] = locale.split('.') as [string, string | undefined];
  return codeset === undefined ? name : `${name}.${codeset.toLowerCase().replaceAll(/[^a-z0-9@]/g, '')}`;
}

async function systemLocales(signal: AbortSignal): Promise<ReadonlySet<string> | undefined> {
  const { status, stdout } = await runProgram('locale', ['-a'], { signal, deadlineMs: 10_000 });
  return status === 0 ? new Set(stdout.split('\n').map((line) => normal(line.trim()))) : undefined;
}

/** Of glibc, which versions its collations with itself; undefined elsewhere. */
function systemLibc(): string | undefined {
  const report = process.report.getReport() as {
    readonly header?: { readonly glibcVersionRuntime?: string };
  };
  return report.header?.glibcVersionRuntime;
}
