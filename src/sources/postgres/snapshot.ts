/**
 * A snapshot with nothing but a connection: BASE_BACKUP for the data, and beside it a temporary slot's stream
 * for the log that makes the data consistent, so that the snapshot stands alone.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { inStep } from '../../core/progress.ts';
import type { Lane, SnapshotFacts } from '../../repository/contract.ts';
import type { SnapshotRequest } from '../source.ts';
import { BackupArchive } from './backup-archive.ts';
import { BackupWal } from './backup-wal.ts';
import {
  type ClusterFacts,
  type ConfigFile,
  type Histories,
  readCluster,
  readConfigFiles,
  readHistories,
} from './cluster.ts';
import type { ConnectionSettings } from './connection.ts';
import { lineageOf, positionOf } from './position.ts';
import type { PostgresSettings } from './settings.ts';
import { type SnapshotTablespace, sealSnapshotMeta } from './snapshot-meta.ts';
import { type BaseBackupResult, type BaseBackupStart, PostgresConnection } from './wire.ts';

export interface SnapshotSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** What was learnt before the copy begins. */
interface Preparation {
  readonly cluster: ClusterFacts;
  readonly files: readonly ConfigFile[];
  readonly warnings: readonly string[];
}

interface Copied {
  readonly start: BaseBackupStart;
  readonly stop: BaseBackupResult;
  readonly warnings: readonly string[];
}

/**
 * Copies the cluster into the sink. Ends at once, with what happened, when either connection is lost. Throws
 * `postgres.standby`, `postgres.unsupported-version`, `postgres.backup-incomplete`, and what connecting throws.
 */
export async function takeSnapshot(source: SnapshotSource, request: SnapshotRequest): Promise<SnapshotFacts> {
  const broken = new AbortController();
  const signal = AbortSignal.any([request.signal, broken.signal]);
  const prepared = await inStep(request.progress, 'look at the server', {}, () => prepare(source, signal));
  const walLane = request.sink.lane();
  const dataLane = request.sink.lane();
  const replication = await PostgresConnection.connect(source.connection, { replication: true, signal });
  let wal: BackupWal | undefined;
  try {
    const identity = await replication.identifySystem({ signal });
    const slot = `holdfast_tmp_${randomBytes(6).toString('hex')}`;
    await replication.createPhysicalSlot(slot, { temporary: true, reserveWal: true }, { signal });
    const histories = await readHistories(replication, identity.systemId, identity.timeline);
    wal = new BackupWal({
      connection: replication,
      lane: walLane,
      slot,
      timeline: identity.timeline,
      segmentSize: prepared.cluster.walSegmentSize,
      // The slot reserved the log from the last checkpoint on; the backup begins with a newer one.
      from: identity.xlogpos,
      mode: prepared.cluster.directoryMode & 0o666,
      clock: request.clock,
      signal,
      onFailure: (error) => broken.abort(error),
    });
    const copied = await copyData(source, request, prepared, {
      lane: dataLane,
      signal,
      systemId: identity.systemId,
    });
    if (copied.start.timeline !== identity.timeline || copied.stop.timeline !== identity.timeline) {
      throw new HoldfastError(
        'postgres.backup-incomplete',
        'The server went over to another timeline during the backup.',
      );
    }
    const running = wal;
    const finished = await inStep(request.progress, 'wait for the log', {}, () =>
      running.finish(copied.stop.stopLsn),
    );
    await writeFiles(dataLane, prepared);
    return factsOf(prepared, identity.systemId, histories, copied, finished);
  } catch (error) {
    // The first failure explains the others.
    if (broken.signal.aborted && !request.signal.aborted) throw broken.signal.reason;
    throw error;
  } finally {
    await wal?.close();
    await replication.close();
  }
}

async function prepare(source: SnapshotSource, signal: AbortSignal): Promise<Preparation> {
  const sql = await PostgresConnection.connect(source.connection, { signal });
  try {
    if (await sql.isPooled({ signal })) {
      throw new HoldfastError(
        'postgres.pooler',
        `${sql.describe()} is a connection pooler, not PostgreSQL itself.`,
      );
    }
    const cluster = await readCluster(sql, signal);
    if (cluster.standby) {
      throw new HoldfastError('postgres.standby', `PostgreSQL at ${sql.describe()} is a standby.`);
    }
    const { files, warnings } = await readConfigFiles(sql, cluster, signal);
    return { cluster, files, warnings: [...cluster.warnings, ...warnings] };
  } finally {
    await sql.close();
  }
}

async function copyData(
  source: SnapshotSource,
  request: SnapshotRequest,
  prepared: Preparation,
  run: { readonly lane: Lane; readonly signal: AbortSignal; readonly systemId: string },
): Promise<Copied> {
  const { lane, signal } = run;
  const { maxRate, checkpoint } = source.settings;
  const connection = await PostgresConnection.connect(source.connection, { replication: true, signal });
  try {
    const { systemId } = await connection.identifySystem({ signal });
    if (systemId !== run.systemId) {
      throw new HoldfastError(
        'postgres.other-cluster',
        `Two connections to ${connection.describe()} reached two different clusters.`,
      );
    }
    return await inStep(request.progress, 'copy the data', {}, async (step) => {
      const { directoryMode } = prepared.cluster;
      const archive = new BackupArchive({ sink: request.sink, lane, directoryMode, step });
      let start: BaseBackupStart | undefined;
      const options = {
        label: `holdfast ${source.name}`,
        fast: checkpoint === 'fast',
        manifest: false,
        tablespaceMap: true,
        ...(maxRate === undefined ? {} : { maxRateKb: maxRate * 1024 }),
      } as const;
      let stop: BaseBackupResult | undefined;
      const warnings: string[] = [];
      try {
        stop = await connection.baseBackup(
          options,
          {
            onStart: (info) => {
              start = info;
              step.total(info.tablespaces.reduce((sum, { sizeKb }) => sum + (sizeKb ?? 0) * 1024, 0));
            },
            onArchive: (_index, name) => archive.begin(name),
            onData: (chunk) => archive.push(chunk),
            onStop: (result) => {
              stop = result;
            },
          },
          signal,
        );
      } catch (error) {
        const damaged = isHoldfastError(error) && error.details.sqlState === dataCorrupted;
        // Sent after everything else: the copy is complete, and better than none.
        if (!damaged || stop === undefined) throw error;
        warnings.push(
          `The server found damaged pages while it was read (checksums do not match). They are in the snapshot as they are on its disk; its log names them. Look for an older snapshot with sound pages: ${error.message}`,
        );
      }
      archive.finish();
      return { start: start!, stop, warnings };
    });
  } finally {
    await connection.close();
  }
}

/** SQLSTATE of "checksum verification failure during base backup". */
const dataCorrupted = 'XX001';

async function writeFiles(lane: Lane, prepared: Preparation): Promise<void> {
  for (const { entry, content } of prepared.files) {
    lane.begin({ path: entry, type: 'file', mode: 0o600 });
    const wait = content.length === 0 ? undefined : lane.write(content);
    if (wait !== undefined) await wait;
    lane.end();
  }
}

function factsOf(
  prepared: Preparation,
  systemId: string,
  histories: Histories,
  copied: Copied,
  finished: number,
): SnapshotFacts {
  const { cluster, files } = prepared;
  const { start, stop } = copied;
  const tablespaces: SnapshotTablespace[] = [];
  for (const { oid, location } of start.tablespaces) {
    // A tablespace inside the data directory (allow_in_place_tablespaces) has a relative path and needs no place.
    if (oid !== null && location?.startsWith('/')) tablespaces.push({ oid, location });
  }
  return {
    lineage: lineageOf(systemId, start.timeline),
    ancestors: histories.ancestors,
    from: positionOf(start.startLsn),
    to: positionOf(stop.stopLsn),
    sourceStarted: cluster.clock,
    sourceFinished: Math.max(finished, cluster.clock),
    meta: sealSnapshotMeta({
      version: cluster.version,
      systemId,
      timeline: start.timeline,
      startLsn: positionOf(start.startLsn),
      stopLsn: positionOf(stop.stopLsn),
      walSegmentSize: cluster.walSegmentSize,
      dataChecksums: cluster.dataChecksums,
      architecture: cluster.architecture,
      tablespaces,
      settings: cluster.settings,
      histories: histories.files,
      configFiles: files.map(({ path, entry }) => ({ path, entry })),
      collations: cluster.collations,
      superuser: cluster.superuser,
    }),
    warnings: [...prepared.warnings, ...copied.warnings],
  };
}
