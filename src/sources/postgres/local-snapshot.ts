/**
 * A snapshot from the data directory on this host: the pipeline's workers read the files between
 * pg_backup_start and pg_backup_stop and hand over the blocks that differ from the snapshot before.
 */
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { inStep, type Step } from '../../core/progress.ts';
import type { BlockSink, Lane, SnapshotFacts } from '../../repository/contract.ts';
import type { SnapshotRequest } from '../source.ts';
import { identifier, literal } from './cluster.ts';
import {
  type DataDirectory,
  openDataDirectory,
  proveCheckpoint,
  readControlFile,
  readServerIdentity,
} from './data-directory.ts';
import { type DamagedPage, FileCopy } from './file-copy.ts';
import { parseLsn } from './position.ts';
import {
  type Copied,
  type CopyRun,
  prepareSnapshot,
  type SnapshotSource,
  snapshotWithLog,
} from './snapshot-frame.ts';
import { DataWalk } from './walk.ts';
import { PostgresConnection } from './wire.ts';

/** Time for the checkpoint of pg_backup_start; a spread one takes checkpoint_timeout (at most a day), usually minutes. */
const fastCheckpointMs = 10 * 60_000;
const spreadCheckpointMs = 25 * 3_600_000;
/** The session must live until pg_backup_stop; asked so often, also so that nothing closes it for idleness. */
const watchMs = 1_000;
const answerMs = 30_000;

/**
 * Whether the data directory of the source can be read here. Undefined when it cannot and the settings leave
 * the choice: then that was said. Throws `postgres.data-directory` or `postgres.local-denied` when the settings
 * ask for it.
 */
export async function findLocal(
  source: SnapshotSource,
  request: SnapshotRequest,
): Promise<DataDirectory | undefined> {
  const { snapshot, dataDirectory } = source.settings;
  if (snapshot === 'remote') return undefined;
  // The fallback is inside the step: nothing failed where there was a choice.
  return await inStep(request.progress, 'look for the data directory', {}, async () => {
    try {
      return await openLocal(source, request.signal);
    } catch (error) {
      const local =
        isHoldfastError(error, 'postgres.data-directory') || isHoldfastError(error, 'postgres.local-denied');
      // A configured place that is wrong would be slow for ever if it were passed over.
      if (!local || snapshot === 'local' || dataDirectory !== undefined) throw error;
      request.log.info(`The snapshot is taken over the connection: ${error.message}`);
      return undefined;
    }
  });
}

async function openLocal(source: SnapshotSource, signal: AbortSignal): Promise<DataDirectory> {
  const sql = await PostgresConnection.connect(source.connection, { signal });
  try {
    const identity = await readServerIdentity(sql, signal);
    const path = source.settings.dataDirectory ?? identity.dataDirectory;
    const [row] = await sql.rows(
      `SELECT current_user AS role, current_setting('block_size') AS block,
              pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AS allowed, p.oid::regprocedure AS function
       FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
       WHERE n.nspname = 'pg_catalog' AND p.proname IN (${sql.serverVersion >= 150_000 ? "'pg_backup_start', 'pg_backup_stop'" : "'pg_start_backup', 'pg_stop_backup'"})
       ORDER BY allowed LIMIT 1`,
      { signal },
    );
    const role = identifier(row?.role ?? '');
    if (path === null) {
      throw new HoldfastError(
        'postgres.local-denied',
        `The role ${role} may not ask where the data directory is.`,
        { next: `GRANT pg_read_all_settings TO ${role}; or set \`dataDirectory\`.` },
      );
    }
    if (row?.allowed !== 't') {
      throw new HoldfastError('postgres.local-denied', `The role ${role} may not execute ${row?.function}.`, {
        next: grants(sql.serverVersion, role),
      });
    }
    if (row.block !== '8192') {
      throw new HoldfastError(
        'postgres.data-directory',
        `The server was built with blocks of ${row.block} bytes; only 8192 can be read locally.`,
      );
    }
    return await openDataDirectory(path, identity, sql.serverVersion, signal);
  } finally {
    await sql.close();
  }
}

function grants(version: number, role: string): string {
  const functions =
    version >= 150_000
      ? ['pg_backup_start(text, boolean)', 'pg_backup_stop(boolean)']
      : ['pg_start_backup(text, boolean, boolean)', 'pg_stop_backup(boolean, boolean)'];
  return functions.map((name) => `GRANT EXECUTE ON FUNCTION pg_catalog.${name} TO ${role};`).join(' ');
}

/**
 * Copies the cluster into the sink. Throws `postgres.standby`, `postgres.backup-incomplete`,
 * `postgres.data-directory` (a copy of the directory was found), and what connecting and reading throw.
 */
export async function takeLocalSnapshot(
  source: SnapshotSource,
  directory: DataDirectory,
  request: SnapshotRequest,
): Promise<SnapshotFacts> {
  const { progress, sink, signal } = request;
  const prepared = await inStep(progress, 'look at the server', {}, () => prepareSnapshot(source, signal));
  const reader = new URL(`./page-reader${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);
  const { version, dataChecksums, directoryMode } = prepared.cluster;
  const facts = JSON.stringify({ ...directory.facts, major: Math.floor(version / 10_000) });
  const blocks = await sink.blocks({
    module: reader,
    data: null,
    full: request.full === true,
    // Comparing is sound whatever was there before; but nobody expects a chain over the replacement of a cluster.
    accept: (before) => before === facts,
  });
  blocks.remember(facts);
  const lanes = { wal: sink.lane(), data: sink.lane() };
  return await snapshotWithLog(source, request, prepared, lanes, (run) =>
    inStep(progress, 'copy the data', {}, (step) => {
      const copy = new LocalCopy({ source, directory, request, run, step, blocks, lane: lanes.data });
      return copy.run(dataChecksums, directoryMode);
    }),
  );
}

interface LocalCopyParts {
  readonly source: SnapshotSource;
  readonly directory: DataDirectory;
  readonly request: SnapshotRequest;
  readonly run: CopyRun;
  readonly step: Step;
  readonly blocks: BlockSink;
  readonly lane: Lane;
}

/** What pg_backup_stop gives back. */
interface Stopped {
  readonly lsn: bigint;
  readonly label: string;
  readonly map: string;
}

class LocalCopy {
  readonly #parts: LocalCopyParts;

  constructor(parts: LocalCopyParts) {
    this.#parts = parts;
  }

  async run(dataChecksums: boolean, directoryMode: number): Promise<Copied> {
    const { source, directory, run } = this.#parts;
    const { signal } = run;
    if (run.systemId !== directory.facts.systemId) {
      throw new HoldfastError(
        'postgres.other-cluster',
        `Two connections to the address of ${source.name} reached two different clusters.`,
      );
    }
    const sql = await PostgresConnection.connect(source.connection, { signal });
    try {
      const start = await this.#start(sql);
      await proveCheckpoint(directory, start, signal);
      const watch = watchSession(sql, run);
      const copied = await this.#files(dataChecksums).finally(() => watch.end());
      await this.#control();
      const stopped = await this.#stop(sql);
      this.#writeText('backup_label', stopped.label, directoryMode);
      if (stopped.map !== '') this.#writeText('tablespace_map', stopped.map, directoryMode);
      const timeline = timelineOf(stopped.label) ?? run.timeline;
      return {
        timeline,
        startLsn: start,
        stopLsn: stopped.lsn,
        stopTimeline: timeline,
        tablespaces: copied.tablespaces,
        warnings: [...copied.warnings, ...damageWarnings(copied.bad, start, stopped.lsn)],
      };
    } finally {
      await sql.close();
    }
  }

  async #start(sql: PostgresConnection): Promise<bigint> {
    const { source, run } = this.#parts;
    const { signal } = run;
    const fast = source.settings.checkpoint === 'fast';
    // Time limits of the role or the database are not meant for this session, which waits by design.
    await sql.query('SET statement_timeout = 0; SET lock_timeout = 0', { signal });
    if (sql.serverVersion >= 140_000) await sql.query('SET idle_session_timeout = 0', { signal });
    const label = literal(`holdfast ${source.name}`);
    const call =
      sql.serverVersion >= 150_000
        ? `pg_backup_start(${label}, ${fast})`
        : `pg_start_backup(${label}, ${fast}, false)`;
    const timeoutMs = fast ? fastCheckpointMs : spreadCheckpointMs;
    const [row] = await sql.rows(`SELECT pg_catalog.${call} AS lsn`, { signal, timeoutMs });
    return parseLsn(row?.lsn ?? '');
  }

  async #stop(sql: PostgresConnection): Promise<Stopped> {
    const { signal } = this.#parts.run;
    // The log of the snapshot is streamed beside it: there is no archive to wait for.
    const call =
      sql.serverVersion >= 150_000
        ? 'pg_backup_stop(wait_for_archive => false)'
        : 'pg_stop_backup(exclusive => false, wait_for_archive => false)';
    const [row] = await sql.rows(`SELECT lsn, labelfile, spcmapfile FROM pg_catalog.${call}`, {
      signal,
      timeoutMs: fastCheckpointMs,
    });
    return { lsn: parseLsn(row?.lsn ?? ''), label: row?.labelfile ?? '', map: row?.spcmapfile ?? '' };
  }

  async #files(dataChecksums: boolean) {
    const { source, directory, request, run, step, blocks } = this.#parts;
    const warnings: string[] = [];
    const walk = new DataWalk({
      root: directory.path,
      catalogVersion: directory.catalogVersion,
      onWarning: (warning) => void warnings.push(warning),
    });
    const { maxRate } = source.settings;
    const copy = new FileCopy({
      sink: request.sink,
      blocks,
      step,
      clock: request.clock,
      signal: run.signal,
      segmentBlocks: directory.segmentBlocks,
      checksums: dataChecksums,
      bytesPerSecond: maxRate === undefined ? null : maxRate * 2 ** 20,
    });
    await copy.run(walk);
    return { warnings, bad: copy.bad, tablespaces: walk.tablespaces };
  }

  /** Last of all data: it names the checkpoint that everything else is at least as new as. */
  async #control(): Promise<void> {
    const { directory, run, lane } = this.#parts;
    const { bytes, stats } = await readControlFile(directory.path, run.signal);
    const { uid, gid } = stats;
    lane.begin({ path: 'global/pg_control', type: 'file', mode: stats.mode & 0o7777, uid, gid });
    await lane.write(bytes);
    lane.end();
  }

  #writeText(path: string, text: string, directoryMode: number): void {
    const { lane } = this.#parts;
    lane.begin({ path, type: 'file', mode: directoryMode & 0o666 });
    void lane.write(Buffer.from(text, 'utf8'));
    lane.end();
  }
}

/** The session that began the backup must live: when it is lost, the server has ended the backup. */
function watchSession(sql: PostgresConnection, run: CopyRun): { end(): Promise<void> } {
  let ended = false;
  let wake: () => void = () => undefined;
  const watching = (async () => {
    while (!ended) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, watchMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (!ended) await sql.query('SELECT 1', { signal: run.signal, timeoutMs: answerMs });
    }
  })().catch((error: unknown) => run.fail(error));
  return {
    end: async () => {
      ended = true;
      wake();
      await watching;
    },
  };
}

/** From the label that the server made. */
function timelineOf(label: string): number | undefined {
  const found = /^START TIMELINE: (\d+)$/m.exec(label)?.[1];
  return found === undefined ? undefined : Number(found);
}

const pathsShown = 20;

/** Pages that were not written during the backup and whose checksum is wrong. */
function damageWarnings(bad: readonly DamagedPage[], start: bigint, stop: bigint): string[] {
  const damaged = bad.filter(({ lsn }) => lsn < start || lsn > stop);
  if (damaged.length === 0) return [];
  const shown = damaged.slice(0, pathsShown).map(({ path, block }) => `${path} block ${block}`);
  const more = damaged.length > shown.length ? ` and ${damaged.length - shown.length} more` : '';
  return [
    `Damaged pages (their checksums are wrong): ${shown.join(', ')}${more}. They are in the snapshot as they are on the server's disk. Look for an older snapshot with sound pages.`,
  ];
}
