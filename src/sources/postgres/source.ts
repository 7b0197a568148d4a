/** PostgreSQL as a kind of source: the wiring of its parts. What is heavy is loaded when it is used. */
import type { RunContext } from '../../core/context.ts';
import type { OpenedSnapshot, SnapshotFacts } from '../../repository/contract.ts';
import type {
  InPlaceRequest,
  Marked,
  MarkRequest,
  OwnPlace,
  OwnPlaceRequest,
  Replaced,
  Restored,
  RestoreRequest,
  SnapshotRequest,
  Source,
  SourceKind,
  SourceReport,
  StreamRequest,
} from '../source.ts';
import { positions } from './position.ts';
import { connectionOf, type PostgresSettings, postgresSettings } from './settings.ts';

class PostgresSource implements Source {
  readonly name: string;
  readonly kind = 'postgres';
  readonly #settings: PostgresSettings;

  constructor(name: string, settings: PostgresSettings) {
    this.name = name;
    this.#settings = settings;
  }

  async probe(context: RunContext): Promise<SourceReport> {
    const { probeServer } = await import('./probe.ts');
    return probeServer(this.#place(), context);
  }

  async snapshot(request: SnapshotRequest): Promise<SnapshotFacts> {
    const place = this.#place();
    if (place.settings.snapshot !== 'remote') {
      const { findLocal, takeLocalSnapshot } = await import('./local-snapshot.ts');
      const directory = await findLocal(place, request);
      if (directory !== undefined) return takeLocalSnapshot(place, directory, request);
    }
    const { takeSnapshot } = await import('./snapshot.ts');
    return takeSnapshot(place, request);
  }

  async stream(request: StreamRequest): Promise<string | null> {
    const { captureLog } = await import('./log-stream.ts');
    return captureLog(this.#place(), request);
  }

  async mark(request: MarkRequest): Promise<Marked> {
    const { markServer } = await import('./mark.ts');
    return markServer(this.#place(), request);
  }

  async ownPlace(request: OwnPlaceRequest): Promise<OwnPlace> {
    const { describePlace } = await import('./in-place.ts');
    return describePlace(this.#place(), request);
  }

  async restoreInPlace(
    request: InPlaceRequest,
  ): Promise<{ readonly restored: Restored; readonly replaced: Replaced }> {
    const { replaceCluster } = await import('./in-place.ts');
    return replaceCluster(this.#place(), request);
  }

  async undoInPlace(request: RunContext & { readonly start: boolean }): Promise<Replaced> {
    const { undoReplacing } = await import('./in-place.ts');
    return undoReplacing(this.#place(), request);
  }

  // Connections live no longer than the operation that needs them.
  async close(): Promise<void> {
    await Promise.resolve();
  }

  #place() {
    return { name: this.name, settings: this.#settings, connection: connectionOf(this.#settings) };
  }
}

/** What `open.ts` registers. `settings` is the zod schema, so that configuration can point at mistakes. */
export const postgresKind = {
  kind: 'postgres',
  positions,
  settings: postgresSettings,
  settingsSchema: postgresSettings,
  // Commit records hold the lower half; the upper one counts how often that came round.
  transactionId: (written: bigint): bigint => BigInt.asUintN(32, written),
  open: (name: string, settings: PostgresSettings): Source => new PostgresSource(name, settings),
  foresee: async (
    snapshot: OpenedSnapshot,
    programs: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> => {
    const { foresee } = await import('./foresight.ts');
    return foresee(snapshot, programs, signal);
  },
  checkTarget: async (request: Omit<RestoreRequest, 'stop'>): Promise<void> => {
    const { checkRestoreTarget } = await import('./restore.ts');
    await checkRestoreTarget(request);
  },
  restore: async (request: RestoreRequest): Promise<Restored> => {
    const { restoreCluster } = await import('./restore.ts');
    return restoreCluster(request);
  },
} satisfies SourceKind<PostgresSettings> & { readonly settingsSchema: unknown };
