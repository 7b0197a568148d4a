/** A snapshot with nothing but a connection: BASE_BACKUP for the data. */
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { inStep } from '../../core/progress.ts';
import type { Lane, SnapshotFacts } from '../../repository/contract.ts';
import type { SnapshotRequest } from '../source.ts';
import { BackupArchive } from './backup-archive.ts';
import {
  type Copied,
  type CopyRun,
  type Preparation,
  prepareSnapshot,
  type SnapshotSource,
  snapshotWithLog,
} from './snapshot-frame.ts';
import type { SnapshotTablespace } from './snapshot-meta.ts';
import { type BaseBackupResult, type BaseBackupStart, PostgresConnection } from './wire.ts';

/**
 * Copies the cluster into the sink. Ends at once, with what happened, when either connection is lost. Throws
 * `postgres.standby`, `postgres.unsupported-version`, `postgres.backup-incomplete`, and what connecting throws.
 */
export async function takeSnapshot(source: SnapshotSource, request: SnapshotRequest): Promise<SnapshotFacts> {
  const prepared = await inStep(request.progress, 'look at the server', {}, () =>
    prepareSnapshot(source, request.signal),
  );
  const lanes = { wal: request.sink.lane(), data: request.sink.lane() };
  return await snapshotWithLog(source, request, prepared, lanes, (run) =>
    copyData(source, request, prepared, lanes.data, run),
  );
}

async function copyData(
  source: SnapshotSource,
  request: SnapshotRequest,
  prepared: Preparation,
  lane: Lane,
  run: CopyRun,
): Promise<Copied> {
  const { signal } = run;
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
      return copiedOf(start!, stop, warnings);
    });
  } finally {
    await connection.close();
  }
}

/** SQLSTATE of "checksum verification failure during base backup". */
const dataCorrupted = 'XX001';

function copiedOf(start: BaseBackupStart, stop: BaseBackupResult, warnings: readonly string[]): Copied {
  const tablespaces: SnapshotTablespace[] = [];
  for (const { oid, location } of start.tablespaces) {
    // A tablespace inside the data directory (allow_in_place_tablespaces) has a relative path and needs no place.
    if (oid !== null && location?.startsWith('/')) tablespaces.push({ oid, location });
  }
  const { timeline, startLsn } = start;
  return { timeline, startLsn, stopLsn: stop.stopLsn, stopTimeline: stop.timeline, tablespaces, warnings };
}
