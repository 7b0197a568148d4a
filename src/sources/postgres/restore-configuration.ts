/** What a restore knows before it writes, and the configuration that it writes from that. */
import { totalmem } from 'node:os';
import { join } from 'node:path';
import type { RestoreRequest } from '../source.ts';
import type { Binaries } from './binaries.ts';
import { makeFolder, writeDurably } from './durable-file.ts';
import { formatLsn } from './position.ts';
import { libraryCheck } from './preload-libraries.ts';
import {
  adaptedConf,
  autoConf,
  cutOffSettings,
  fetchScript,
  filterLibraries,
  generatedConf,
  type LibrarySetting,
  librarySettings,
  parseSettings,
  recoverySettings,
  releaseScript,
  restoredHba,
  restoreFolder,
  type Settings,
} from './recovery-settings.ts';
import type { RestoredFiles } from './restore-files.ts';
import { commands, restoreReadme } from './restore-words.ts';
import type { ServerUser } from './server-user.ts';
import type { SnapshotMeta } from './snapshot-meta.ts';
import { spoolHistories } from './wal-spool.ts';

/** All that is known before the first byte is written. */
export interface RestorePlan {
  readonly request: RestoreRequest;
  readonly meta: SnapshotMeta;
  readonly owner: ServerUser | undefined;
  /** Folders of tablespaces by OID. */
  readonly places: ReadonlyMap<string, string>;
  /** Undefined only without `start`. */
  readonly binaries: Binaries | undefined;
  readonly timeline: number;
  /** As PostgreSQL gets it: null when the log ends before. */
  readonly beforeLsn: bigint | null;
  /** Where the first record begins that is left out; undefined where the log did not tell. */
  readonly exact: bigint | undefined;
  readonly logEnd: bigint | null;
  readonly histories: readonly Readonly<Record<string, string>>[];
  readonly logBytes: number;
  readonly walFolder: string;
  readonly socketDir: string;
  readonly port: number;
  readonly warnings: string[];
}

export interface Configured {
  readonly autoOriginal: string;
  readonly cutOff: Settings;
  readonly recovery: Settings;
}

/** Writes everything that makes the folder a server of its own, but the file that makes it startable. */
export async function configure(plan: RestorePlan, files: RestoredFiles): Promise<Configured> {
  const { meta, owner, request } = plan;
  const { to } = request;
  const ours = join(to, restoreFolder);
  await makeFolder(plan.walFolder, owner);
  await makeFolder(plan.socketDir, owner);
  const autoOriginal = files.text('postgresql.auto.conf');
  const original = files.text('postgresql.conf');
  const elsewhere =
    original === '' || meta.configFiles.some(({ path }) => /(^|\/)postgresql\.conf$/.test(path));
  const conf = elsewhere ? generatedConf(meta) : adaptedConf(original, autoOriginal, meta, to);
  if (conf !== original) await writeDurably(join(to, 'postgresql.conf'), conf, owner);
  for (const name of ['pg_hba.conf', 'pg_ident.conf']) {
    if (files.text(name) !== '') continue;
    const external = meta.configFiles.find(({ path }) => path.endsWith(`/${name}`));
    await writeDurably(join(to, name), external === undefined ? '' : files.text(external.entry), owner);
  }
  const cutOff = cutOffSettings({
    to,
    socketDir: plan.socketDir,
    port: plan.port,
    meta,
    libraries: await libraries(plan),
    memory: totalmem(),
  });
  const stale = [...Object.keys(meta.settings), ...parseSettings(conf).keys()];
  const recovery = recoverySettings(
    { timeline: plan.timeline, beforeLsn: plan.beforeLsn === null ? null : formatLsn(plan.beforeLsn) },
    to,
    stale,
  );
  await writeDurably(join(ours, 'pg_hba.conf'), restoredHba(), owner);
  await writeDurably(join(ours, 'pg_ident.conf'), '', owner);
  await writeDurably(join(ours, 'fetch-wal.sh'), fetchScript(request.start ? process.pid : null), owner);
  await writeDurably(join(ours, 'release.sql'), releaseScript(autoOriginal, cutOff, recovery), owner);
  await writeDurably(join(ours, 'source.auto.conf'), autoOriginal, owner);
  await writeDurably(join(ours, 'README.txt'), restoreReadme(commands(plan)), owner);
  await spoolHistories(plan.walFolder, plan.histories, owner);
  await writeDurably(join(to, 'recovery.signal'), '', owner);
  return { autoOriginal, cutOff, recovery };
}

async function libraries(plan: RestorePlan): Promise<Record<LibrarySetting, string>> {
  const { meta, binaries, warnings } = plan;
  const available = binaries === undefined ? undefined : await libraryCheck(binaries, meta);
  const result = {} as Record<LibrarySetting, string>;
  for (const name of librarySettings) {
    const { kept, left } = filterLibraries(meta.settings[name] ?? '', available);
    result[name] = kept;
    if (left.length > 0) {
      warnings.push(
        `${name} was reduced: ${left.join(', ')} acts by itself or is not installed on this machine.`,
      );
    }
  }
  return result;
}

/** The real postgresql.auto.conf; with pg_control in place the folder can be started now. */
export async function makeStartable(
  plan: RestorePlan,
  configured: Configured,
  recovery: Settings | undefined,
): Promise<void> {
  const text = autoConf(configured.autoOriginal, configured.cutOff, recovery);
  await writeDurably(join(plan.request.to, 'postgresql.auto.conf'), text, plan.owner);
}
