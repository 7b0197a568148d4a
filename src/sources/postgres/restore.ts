/**
 * Restores a PostgreSQL snapshot and its log into a folder, and on request starts the server there, cut off
 * from the world of its source, and proves that it reached the moment asked for.
 *
 * Until all is there the folder cannot be started by anybody: pg_control is written last, and until then
 * postgresql.auto.conf is one that PostgreSQL refuses.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { inStep } from '../../core/progress.ts';
import type { Restored, RestoreRequest } from '../source.ts';
import { findBinaries, requireBinaries } from './binaries.ts';
import { writeDurably } from './durable-file.ts';
import { exactStop } from './exact-stop.ts';
import { LogInspection } from './log-inspection.ts';
import {
  formatLsn,
  historyName,
  lineageOf,
  lsnOf,
  nextRecordStart,
  parseLineage,
  positionOf,
} from './position.ts';
import { type Recovered, runRecovery } from './recovery-run.ts';
import { restoreFolder } from './recovery-settings.ts';
import { type Configured, configure, makeStartable, type RestorePlan } from './restore-configuration.ts';
import { finishFiles, type RestoredFiles, restoreFiles, snapshotWalFolder } from './restore-files.ts';
import { blockAgain, checkTarget, openTarget, tablespacePlaces, unmark } from './restore-target.ts';
import { commands, nextSteps, serverLog } from './restore-words.ts';
import { connectScratch, scratchUrl } from './scratch-connection.ts';
import { freePort } from './server.ts';
import { type ServerUser, serverUser } from './server-user.ts';
import { databaseOf } from './settings.ts';
import { openSnapshotMeta, type SnapshotMeta } from './snapshot-meta.ts';
import { feedSpool, partHistories } from './wal-feed.ts';
import { WalSpool } from './wal-spool.ts';

/**
 * See `RestoreRequest` and `Restored`. Never writes outside `to` and the folders of tablespaces. `owner`: who the
 * files belong to, and who runs the server; default: as root, the user that runs scratch servers. On failure or abort
 * everything that was started is stopped, and the folder, unstartable and marked, may be deleted.
 */
export async function restoreCluster(request: RestoreRequest, owner?: ServerUser): Promise<Restored> {
  const plan = await prepare(request, owner ?? (await serverUser()));
  await openTarget(request.to, plan.owner);
  try {
    const files = await inStep(
      request.progress,
      'Restore the files',
      { total: request.snapshot.stats.bytes },
      (step) => restoreFiles({ ...request, ...plan, to: request.to }, { ...request, progress: step }),
    );
    const configured = await configure(plan, files);
    return request.start
      ? await finishStarted(plan, files, configured)
      : await finishStopped(plan, files, configured);
  } catch (error) {
    await blockAgain(request.to, plan.owner);
    if (!plan.socketDir.startsWith(request.to)) await rm(plan.socketDir, { recursive: true, force: true });
    throw withFolder(error, request.to);
  }
}

/** Refuses a target that cannot be restored into; resolves with the folders of the tablespaces. Changes nothing. */
export async function checkRestoreTarget({
  snapshot,
  parts,
  to,
  start,
  places: given,
}: Omit<RestoreRequest, 'stop'>): Promise<Map<string, string>> {
  const places = tablespacePlaces(openSnapshotMeta(snapshot.meta).tablespaces, to, given);
  const logBytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  const bytes = snapshot.stats.bytes + (start ? Math.min(logBytes, 3 * 2 ** 28) : logBytes);
  await checkTarget({ to, places, bytes });
  return places;
}

async function prepare(request: RestoreRequest, owner: ServerUser | undefined): Promise<RestorePlan> {
  const { reader, snapshot, parts, stop, to, signal } = request;
  const meta = openSnapshotMeta(snapshot.meta);
  const major = Math.floor(meta.version / 10_000);
  const binaries = request.start
    ? await requireBinaries(major, { extra: request.programs ?? [], signal })
    : await findBinaries(major, { extra: request.programs ?? [], signal });
  const { systemId, timeline } = parseLineage(stop.lineage);
  if (systemId !== meta.systemId) {
    throw new HoldfastError(
      'recovery.wal-disagrees',
      `The moment asked for belongs to the server ${systemId}, the snapshot to ${meta.systemId}.`,
    );
  }
  const known = await partHistories(parts, reader, signal);
  const histories = [meta.histories, ...known.histories];
  requireHistory(histories, timeline, meta.timeline);
  const end = parts.length === 0 ? meta.stopLsn : known.recordEnd;
  const stopLsn = stop.before === null ? null : lsnOf(stop.before);
  const exact =
    stopLsn === null ? undefined : await exactStop(stopLsn, parts, reader, meta.walSegmentSize, signal);
  const logBytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  const places = await checkRestoreTarget(request);
  const warnings: string[] = [];
  return {
    request,
    meta,
    owner,
    places,
    binaries,
    timeline,
    beforeLsn: stopInLog(request, exact ?? stopLsn, end, meta),
    exact,
    logEnd: end === null ? null : lsnOf(end),
    histories,
    logBytes,
    walFolder: join(to, restoreFolder, 'wal'),
    socketDir: await socketFolder(to),
    port: await freePort(),
    warnings,
  };
}

/**
 * PostgreSQL stops before a record at or behind the target, and gives up when the log ends before one: a
 * target at the very end of the log is no target for it.
 */
function stopInLog(
  request: RestoreRequest,
  before: bigint | null,
  recordEnd: string | null,
  meta: SnapshotMeta,
): bigint | null {
  if (before === null) return null;
  const end = recordEnd ?? request.parts.at(-1)?.to ?? meta.stopLsn;
  const behind =
    nextRecordStart(before, meta.walSegmentSize) >= nextRecordStart(lsnOf(end), meta.walSegmentSize);
  return behind ? null : before;
}

function requireHistory(
  histories: readonly Readonly<Record<string, string>>[],
  timeline: number,
  snapshotTimeline: number,
): void {
  const name = historyName(timeline);
  if (timeline === 1 || timeline === snapshotTimeline || histories.some((known) => name in known)) return;
  throw new HoldfastError(
    'recovery.wal-missing',
    `The history of timeline ${timeline} (${name}) is not in the repository, so PostgreSQL cannot follow it.`,
  );
}

/** Inside the folder where its path allows (it goes when the folder goes), else a short one of its own. */
async function socketFolder(to: string): Promise<string> {
  const inside = join(to, restoreFolder, 'socket');
  return Buffer.byteLength(inside) + '/.s.PGSQL.65535'.length <= 100 ? inside : mkdtemp('/tmp/holdfast-');
}

function spoolOf(plan: RestorePlan, gate: ((name: string) => Promise<void>) | undefined): WalSpool {
  const { meta, owner, request, walFolder, beforeLsn, warnings } = plan;
  const inspection = new LogInspection({
    segmentSize: meta.walSegmentSize,
    before: beforeLsn,
    owner,
    onWarning: (warning) => void warnings.push(warning),
  });
  return new WalSpool({
    folder: walFolder,
    snapshotFolder: snapshotWalFolder(request.to),
    segmentSize: meta.walSegmentSize,
    timeline: meta.timeline,
    startLsn: lsnOf(meta.startLsn),
    stopLsn: lsnOf(meta.stopLsn),
    owner,
    sync: gate === undefined,
    inspect: (path, timeline, start, end) => inspection.segment(path, timeline, start, end),
    ...(gate === undefined ? {} : { gate }),
  });
}

async function fill(
  plan: RestorePlan,
  signal: AbortSignal,
  gate: ((name: string) => Promise<void>) | undefined,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { parts, reader, stop } = plan.request;
  const spool = spoolOf(plan, gate);
  try {
    await spool.begin();
    await feedSpool(spool, parts, reader, signal, onBytes);
    if (stop.before !== null && spool.end < lsnOf(stop.before) && parts.length > 0) {
      throw new HoldfastError(
        'recovery.wal-missing',
        `The log that was given ends at ${formatLsn(spool.end)}, before ${formatLsn(lsnOf(stop.before))}.`,
      );
    }
    await spool.finish();
  } finally {
    await spool.close();
  }
}

/** Leaves a folder that recovers by itself at its first start. */
async function finishStopped(
  plan: RestorePlan,
  files: RestoredFiles,
  configured: Configured,
): Promise<Restored> {
  const { request, owner } = plan;
  await inStep(request.progress, 'Fetch the log', { total: plan.logBytes }, async (step) => {
    await fill(plan, request.signal, undefined, (bytes) => step.advance(bytes));
    await rm(snapshotWalFolder(request.to), { recursive: true, force: true });
    await writeDurably(join(plan.walFolder, 'complete'), '', owner);
  });
  request.signal.throwIfAborted();
  await finishFiles(request.to, files.control, owner);
  await makeStartable(plan, configured, configured.recovery);
  await unmark(request.to);
  return {
    ...summary(plan, files),
    server: null,
    next: nextSteps(plan, commands(plan), false),
    warnings: plan.warnings,
  };
}

/** Starts the server, replays, and takes the marker away only when it has reached the moment asked for. */
async function finishStarted(
  plan: RestorePlan,
  files: RestoredFiles,
  configured: Configured,
): Promise<Restored> {
  const { request, meta } = plan;
  await finishFiles(request.to, files.control, plan.owner);
  await makeStartable(plan, configured, configured.recovery);
  const last = request.parts.at(-1)?.to ?? meta.stopLsn;
  const recovered = await runRecovery(
    {
      ...plan,
      binaries: plan.binaries!,
      to: request.to,
      access: { socketDir: plan.socketDir, port: plan.port },
      logFile: serverLog(plan),
      stop: request.stop,
      from: lsnOf(meta.startLsn),
      until: plan.beforeLsn ?? lsnOf(last),
      feed: (gate, signal) => fill(plan, signal, gate, () => undefined),
    },
    request,
  );
  try {
    await makeStartable(plan, configured, undefined);
    await rm(plan.walFolder, { recursive: true, force: true });
    await rm(snapshotWalFolder(request.to), { recursive: true, force: true });
    await rm(join(request.to, restoreFolder, 'fetch-wal.sh'), { force: true });
    await unmark(request.to);
  } catch (error) {
    await recovered.server.stop('immediate');
    throw error;
  }
  return started(plan, files, recovered, await databaseToTell(plan, recovered));
}

/** The source's own database, where it was there at the moment restored; else one that every server has. */
async function databaseToTell(plan: RestorePlan, { server }: Recovered): Promise<string> {
  const own = databaseOf(plan.request.settings);
  if (own === undefined) return server.connection.database;
  try {
    const { signal } = plan.request;
    const client = await connectScratch(
      { ...server.connection, database: own },
      { timeoutMs: 10_000, signal },
    );
    await client.end();
    return own;
  } catch {
    // The restore is done and stands; a name for people must not end it.
    return server.connection.database;
  }
}

function started(plan: RestorePlan, files: RestoredFiles, recovered: Recovered, database: string): Restored {
  const { server, reached, timeline, warnings } = recovered;
  const known = commands(plan, database);
  return {
    ...summary(plan, files),
    server: {
      connection: scratchUrl({ ...server.connection, database }),
      pid: server.pid,
      reached: positionOf(reached),
      lineage: lineageOf(plan.meta.systemId, timeline),
      stop: known.stop,
    },
    next: nextSteps(plan, known, true),
    warnings: [...plan.warnings, ...warnings],
  };
}

function summary(
  plan: RestorePlan,
  files: RestoredFiles,
): Pick<Restored, 'to' | 'files' | 'bytes' | 'logBytes'> {
  return { to: plan.request.to, files: files.files, bytes: files.bytes, logBytes: plan.logBytes };
}

/** An error that ends a restore says what became of the folder. */
function withFolder(error: unknown, to: string): unknown {
  if (!isHoldfastError(error) || error.message.includes('can be deleted')) return error;
  return new HoldfastError(
    error.code,
    `${error.message}\nThe unfinished folder ${to} cannot be started and can be deleted.`,
    {
      next: error.next,
      details: error.details,
      cause: error,
    },
  );
}
