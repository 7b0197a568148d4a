/**
 * Looks through the log before PostgreSQL replays it, for what replay must not do: create a tablespace where
 * the source has its own. Replay takes the recorded path as it is and empties what it finds there.
 */
import { open, readdir } from 'node:fs/promises';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../../core/errors.ts';
import { formatLsn } from './position.ts';
import type { ServerUser } from './server-user.ts';
import { type TablespaceCreation, WalScanner } from './wal-records.ts';

export interface LogInspectionOptions {
  readonly segmentSize: number;
  /** Nothing at or after this place is replayed; null: everything is. */
  readonly before: bigint | null;
  readonly owner: ServerUser | undefined;
  readonly onWarning: (warning: string) => void;
}

const chunkBytes = 1024 * 1024;

/** Takes segments in the order in which they are replayed. */
export class LogInspection {
  readonly #options: LogInspectionOptions;
  #scanner: WalScanner | undefined;
  #timeline = 0;

  constructor(options: LogInspectionOptions) {
    this.#options = options;
  }

  /**
   * Reads the segment file at `path`, which holds log up to `end`. Throws `recovery.tablespace-in-log`. Log that
   * cannot be understood is left to PostgreSQL, which checks every record, with a warning.
   */
  async segment(path: string, timeline: number, start: bigint, end: bigint): Promise<void> {
    if (this.#scanner?.position !== start || this.#timeline !== timeline) {
      this.#scanner = new WalScanner(start, { segmentSize: this.#options.segmentSize });
      this.#timeline = timeline;
    }
    const scanner = this.#scanner;
    const length = Math.min(this.#options.segmentSize, Number(end - start));
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.allocUnsafe(Math.min(chunkBytes, length));
      for (let done = 0; done < length; ) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, length - done), done);
        if (bytesRead === 0) return;
        scanner.push(buffer.subarray(0, bytesRead));
        done += bytesRead;
        for (const creation of scanner.takeTablespaces()) await this.#judge(creation);
        scanner.takeCommits();
        scanner.takeRestorePoints();
      }
    } catch (error) {
      if (!isHoldfastError(error, 'postgres.wal-invalid')) throw error;
      this.#scanner = undefined;
      this.#options.onWarning(`The log could not be looked through for new tablespaces: ${error.message}`);
    } finally {
      await file.close();
    }
  }

  /** An empty folder, made by a person for this purpose, is the one place that replay may use. */
  async #judge(creation: TablespaceCreation): Promise<void> {
    const { before, owner, onWarning } = this.#options;
    const { position, location } = creation;
    // A path that is not absolute is one inside the data directory.
    if (!location.startsWith('/') || (before !== null && position >= before)) return;
    const user = owner?.name ?? 'the current user';
    let empty = false;
    try {
      empty = (await readdir(location)).length === 0;
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw this.#refuse(creation, 'cannot be read here', error);
      throw this.#refuse(creation, 'is not on this machine');
    }
    if (!empty) throw this.#refuse(creation, 'is in use on this machine');
    onWarning(
      `The log creates a tablespace in ${location}: the empty folder there, owned by ${user}, is used for it.`,
    );
  }

  #refuse(creation: TablespaceCreation, why: string, cause?: unknown): HoldfastError {
    const { position, location } = creation;
    const user = this.#options.owner?.name;
    const own = user === undefined ? '' : ` -o ${user}`;
    const absent = why === 'is not on this machine';
    const make = absent
      ? ` Or let it be created at its own path on this machine: \`install -d -m 700${own} ${location}\`, then restore again.`
      : '';
    return new HoldfastError(
      'recovery.tablespace-in-log',
      `The log creates a tablespace in ${location} at ${formatLsn(position)}, after the snapshot, and that folder ${why}.`,
      {
        cause,
        details: { location, lsn: formatLsn(position) },
        next: `Restore from a snapshot that was taken later (\`--snapshot\`), or to a place before it (\`--lsn ${formatLsn(position)}\`).${make}`,
      },
    );
  }
}
