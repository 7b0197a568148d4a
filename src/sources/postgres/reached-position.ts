/** Whether a recovery ended where it was meant to. Pure. */
import { HoldfastError } from '../../core/errors.ts';
import type { StopAt } from '../source.ts';
import { formatLsn, lsnOf, nextRecordStart } from './position.ts';

export interface Reached {
  /** Where the restored server's own timeline begins: the end of the last record that was replayed. */
  readonly lsn: bigint;
  /** End of the last complete record of the log that was given; null where unknown. */
  readonly end: bigint | null;
  /** Where the first record begins that must not be replayed; null where unknown. */
  readonly exact?: bigint | null;
  readonly segmentSize: number;
}

/** Throws `recovery.wrong-position` when the place reached is not the one that the plan names. */
export function checkReached(stop: StopAt, reached: Reached): void {
  const wrong = (why: string): HoldfastError =>
    new HoldfastError(
      'recovery.wrong-position',
      `The server ended its recovery at ${formatLsn(reached.lsn)}, ${why}.`,
      {
        details: {
          reached: formatLsn(reached.lsn),
          before: stop.before === null ? null : formatLsn(lsnOf(stop.before)),
          lastCommit: stop.lastCommit === null ? null : formatLsn(lsnOf(stop.lastCommit)),
        },
      },
    );
  if (stop.lastCommit !== null && reached.lsn <= lsnOf(stop.lastCommit)) {
    throw wrong(
      `before the commit at ${formatLsn(lsnOf(stop.lastCommit))}, which belongs to the moment asked for`,
    );
  }
  if (stop.firstExcluded !== null && reached.lsn > lsnOf(stop.firstExcluded)) {
    throw wrong(`behind the commit at ${formatLsn(lsnOf(stop.firstExcluded))}, which does not belong to it`);
  }
  if (reached.exact !== undefined && reached.exact !== null) {
    if (nextRecordStart(reached.lsn, reached.segmentSize) === reached.exact) return;
    throw wrong(`and the first record to be left out begins at ${formatLsn(reached.exact)}`);
  }
  if (stop.before !== null) {
    // A place that somebody names may lie inside a record, and PostgreSQL replays a record that begins before it
    // to its end. Where a later commit is known, the check above proves that none too many was replayed.
    if (stop.firstExcluded === null && reached.lsn > lsnOf(stop.before))
      throw wrong(`behind ${formatLsn(lsnOf(stop.before))}, where it had to stop`);
    return;
  }
  if (reached.end === null) return;
  const at = nextRecordStart(reached.lsn, reached.segmentSize);
  if (at < nextRecordStart(reached.end, reached.segmentSize)) {
    throw wrong(`before the end of the log at ${formatLsn(reached.end)}`);
  }
}
