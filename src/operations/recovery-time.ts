/**
 * Where a time lies in a stretch. Pure.
 *
 * The truth is the order of the log: time T means everything before the first commit that is later than T.
 * Commit times may step back by a little where sessions commit at once (measured: 3.6 ms with 60 clients); the
 * rule holds there. Where they step back by more than a second the clock was set, and a T that was passed
 * twice is nobody's clear wish: it is refused with both places.
 */
import type { Commit, SnapshotHeader } from '../repository/contract.ts';
import { type CommitIndex, commitPosition, type Lookup, trim } from './recovery-commits.ts';
import type { Stretch } from './recovery-history.ts';

/** A step back by more than this, in microseconds, is a clock that was set. */
export const clockStepMicros = 1_000_000n;

export type TimeAnswer =
  /** `stop`: the first commit later than T; null: everything there is, T being the last commit's time. */
  | { readonly kind: 'at'; readonly stop: Commit | null; readonly lastCommit: Commit | null }
  /** T was passed at `first`, the clock was set back, and T was passed again at `second` (null: not yet). */
  | { readonly kind: 'ambiguous'; readonly first: Commit; readonly second: Commit | null }
  /** T is earlier than the first moment. */
  | { readonly kind: 'before' }
  /** T is later than the last commit. */
  | { readonly kind: 'after' }
  /** No time in this stretch can be told: it has no snapshot, or no commit later than its first snapshot. */
  | { readonly kind: 'none' };

/**
 * The first moment that a time can name where `oldest` is a window's oldest snapshot, microseconds since 1970: its
 * end, by which everything that is in it was committed. Log that reaches further back could prove some earlier
 * moments to hold the same; they are not offered, because lists, plans and refusals must all name one number, and
 * lists see only headers.
 */
export function knownSince(oldest: SnapshotHeader): bigint {
  // The source's clock was read in milliseconds: a commit just before may lie later within that millisecond.
  return BigInt(oldest.sourceFinished + 1) * 1000n;
}

/** The first and last moment of a stretch that a time can name; null when it has none. */
export function* momentsOf(
  stretch: Stretch,
  commits: CommitIndex,
): Lookup<{ readonly first: bigint; readonly last: bigint } | null> {
  const oldest = stretch.snapshots[0];
  if (oldest === undefined) return null;
  const last = yield* latestTime(stretch, oldest.to, null, commits);
  const earlier = yield* latestTime(stretch, stretch.from, oldest.to, commits);
  const since = knownSince(oldest);
  const first = earlier !== null && earlier > since ? earlier : since;
  return last === null || last < first ? null : { first, last };
}

function* latestTime(
  stretch: Stretch,
  from: string,
  to: string | null,
  commits: CommitIndex,
): Lookup<bigint | null> {
  let latest: bigint | null = null;
  for (const covered of stretch.cover) {
    const piece = trim(covered, from, to);
    const times = piece === null ? null : yield* commits.times(piece);
    if (times !== null && (latest === null || times.max > latest)) latest = times.max;
  }
  return latest;
}

/** Where `time` (microseconds since 1970) lies in the stretch. */
export function* locateTime(stretch: Stretch, time: bigint, commits: CommitIndex): Lookup<TimeAnswer> {
  const oldest = stretch.snapshots[0];
  if (oldest === undefined) return { kind: 'none' };
  const last = yield* latestTime(stretch, oldest.to, null, commits);
  if (last === null) return { kind: 'none' };
  if (time < knownSince(oldest)) return { kind: 'before' };
  if (time > last) return { kind: 'after' };
  const stop = yield* firstLater(stretch, time, commits);
  if (stop === null) {
    return { kind: 'at', stop: null, lastCommit: yield* commits.lastBefore(stretch, stretch.to) };
  }
  const stepped = yield* steppedBack(stretch, stop, time, commits);
  if (stepped !== undefined) return { kind: 'ambiguous', first: stop, second: stepped };
  if (commitPosition(stop) < oldest.to) return { kind: 'before' };
  return { kind: 'at', stop, lastCommit: yield* commits.lastBefore(stretch, commitPosition(stop)) };
}

function* firstLater(stretch: Stretch, time: bigint, commits: CommitIndex): Lookup<Commit | null> {
  for (const piece of stretch.cover) {
    if (piece.part.times === null || BigInt(piece.part.times.max) <= time) continue;
    const found = (yield* commits.of(piece)).find((commit) => commit.time > time);
    if (found !== undefined) return found;
  }
  return null;
}

/**
 * Whether the clock was set back over `time` after `stop`: undefined when not, else the commit at which `time`
 * was passed for the last time (null when the log ends before that).
 */
function* steppedBack(
  stretch: Stretch,
  stop: Commit,
  time: bigint,
  commits: CommitIndex,
): Lookup<Commit | null | undefined> {
  let highest = stop.time;
  let stepped = false;
  let second: Commit | null | undefined;
  for (const covered of stretch.cover) {
    const piece = trim(covered, commitPosition(stop), null);
    const times = piece === null ? null : yield* commits.times(piece);
    if (piece === null || times === null) continue;
    const quiet = times.min > time && second !== null;
    if (!quiet) {
      for (const commit of yield* commits.of(piece)) {
        if (commit.time > highest) highest = commit.time;
        if (commit.time <= time) {
          second = null;
          if (highest - commit.time > clockStepMicros) stepped = true;
        } else if (second === null) second = commit;
      }
    }
    if (times.max > highest) highest = times.max;
  }
  return stepped ? second : undefined;
}
