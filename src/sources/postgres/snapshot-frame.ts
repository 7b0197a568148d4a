/**
 * What every physical snapshot has around the copying of the data: a look at the server, a temporary slot's
 * stream for the log that makes the data consistent, so that the snapshot stands alone, and its description.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../../core/errors.ts';
import { inStep } from '../../core/progress.ts';
import type { Lane, SnapshotFacts } from '../../repository/contract.ts';
import type { SnapshotRequest } from '../source.ts';
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
import { PostgresConnection } from './wire.ts';

export interface SnapshotSource {
  readonly name: string;
  readonly settings: PostgresSettings;
  readonly connection: ConnectionSettings;
}

/** What was learnt before the copy begins. */
export interface Preparation {
  readonly cluster: ClusterFacts;
  readonly files: readonly ConfigFile[];
  readonly warnings: readonly string[];
}

/** What copying the data found out. */
export interface Copied {
  readonly timeline: number;
  readonly startLsn: bigint;
  /** Where the copy is consistent, and the timeline there. */
  readonly stopLsn: bigint;
  readonly stopTimeline: number;
  readonly tablespaces: readonly SnapshotTablespace[];
  readonly warnings: readonly string[];
}

/** What the copying works with. */
export interface CopyRun {
  /** Aborted also when the log breaks off. */
  readonly signal: AbortSignal;
  readonly systemId: string;
  readonly timeline: number;
  /** Ends everything at once, with this error. */
  readonly fail: (error: unknown) => void;
}

export interface SnapshotLanes {
  readonly wal: Lane;
  readonly data: Lane;
}

/**
 * Runs `copy` beside the log's stream and describes the result. Ends at once, with what happened, when a
 * connection is lost. Throws `postgres.backup-incomplete` and what connecting and `copy` throw.
 */
export async function snapshotWithLog(
  source: SnapshotSource,
  request: SnapshotRequest,
  prepared: Preparation,
  lanes: SnapshotLanes,
  copy: (run: CopyRun) => Promise<Copied>,
): Promise<SnapshotFacts> {
  const broken = new AbortController();
  const fail = (error: unknown) => broken.abort(error);
  const signal = AbortSignal.any([request.signal, broken.signal]);
  const replication = await PostgresConnection.connect(source.connection, { replication: true, signal });
  let wal: BackupWal | undefined;
  try {
    const identity = await replication.identifySystem({ signal });
    const slot = `holdfast_tmp_${randomBytes(6).toString('hex')}`;
    await replication.createPhysicalSlot(slot, { temporary: true, reserveWal: true }, { signal });
    const histories = await readHistories(replication, identity.systemId, identity.timeline);
    wal = new BackupWal({
      connection: replication,
      lane: lanes.wal,
      slot,
      timeline: identity.timeline,
      segmentSize: prepared.cluster.walSegmentSize,
      // The slot reserved the log from the last checkpoint on; the backup begins with a newer one.
      from: identity.xlogpos,
      mode: prepared.cluster.directoryMode & 0o666,
      clock: request.clock,
      signal,
      onFailure: fail,
    });
    const { systemId, timeline } = identity;
    const copied = await copy({ signal, systemId, timeline, fail });
    if (copied.timeline !== timeline || copied.stopTimeline !== timeline) {
      throw new HoldfastError(
        'postgres.backup-incomplete',
        'The server went over to another timeline during the backup.',
      );
    }
    const running = wal;
    const finished = await inStep(request.progress, 'wait for the log', {}, () =>
      running.finish(copied.stopLsn),
    );
    await writeFiles(lanes.data, prepared);
    return factsOf(prepared, systemId, histories, copied, finished);
  } catch (error) {
    // The first failure explains the others.
    if (broken.signal.aborted && !request.signal.aborted) throw broken.signal.reason;
    throw error;
  } finally {
    await wal?.close();
    await replication.close();
  }
}

/** Looks at the server. Throws `postgres.standby`, `postgres.pooler`, and what connecting throws. */
export async function prepareSnapshot(source: SnapshotSource, signal: AbortSignal): Promise<Preparation> {
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
  const { timeline, startLsn, stopLsn, tablespaces } = copied;
  return {
    lineage: lineageOf(systemId, timeline),
    ancestors: histories.ancestors,
    from: positionOf(startLsn),
    to: positionOf(stopLsn),
    sourceStarted: cluster.clock,
    sourceFinished: Math.max(finished, cluster.clock),
    meta: sealSnapshotMeta({
      version: cluster.version,
      systemId,
      timeline,
      startLsn: positionOf(startLsn),
      stopLsn: positionOf(stopLsn),
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
