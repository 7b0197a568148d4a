/**
 * Places in the log that are known by a name of their own: a transaction by its commit, a named point by its
 * mark. Pure. Each becomes an exact position to stop at, so that what is replayed is known before it is.
 */

import { type CommitIndex, commitPosition, type Lookup } from './recovery-commits.ts';
import { compare, ownerAt, type Stretch } from './recovery-history.ts';
import type { RecoveryTarget } from './recovery-request.ts';

export type NamedTarget = Extract<RecoveryTarget, { readonly kind: 'transaction' | 'name' }>;

/** One place that a target names. */
export interface Place {
  readonly stretch: Stretch;
  readonly lineage: string;
  /** Of its record. */
  readonly position: string;
  /** Where replay ends for it, exclusive. */
  readonly stop: string;
  /** Microseconds since 1970. */
  readonly time: bigint;
}

/** For messages: `transaction 742`, `named point "before the release"`. */
export function describeTarget(target: NamedTarget): string {
  return target.kind === 'name' ? `named point "${target.name}"` : `transaction ${target.id}`;
}

/**
 * Every place of that name, each once, by position. Looks at all of the log that is given: an id or a name that
 * comes twice must not silently mean the first.
 */
export function* findPlaces(
  stretches: readonly Stretch[],
  target: NamedTarget,
  commits: CommitIndex,
): Lookup<Place[]> {
  const found = new Map<string, Place>();
  for (const stretch of stretches) {
    for (const piece of stretch.cover) {
      const records =
        target.kind === 'name'
          ? (yield* commits.marks(piece)).filter(({ name }) => name === target.name)
          : (yield* commits.of(piece)).filter(({ id }) => id === target.id);
      for (const { position: start, time } of records) {
        const position = commitPosition({ position: start });
        const lineage = ownerAt(stretch.history, position);
        const key = `${lineage} ${position}`;
        // Histories that share their beginning share its places; the one with a snapshot can restore them.
        const known = found.get(key);
        if (known !== undefined && known.stretch.snapshots.length > 0) continue;
        found.set(key, {
          stretch,
          lineage,
          position,
          stop: commitPosition({ position: stopFor(target, start) }),
          time,
        });
      }
    }
  }
  return [...found.values()].sort((a, b) => compare(a.position, b.position));
}

/** One byte behind the beginning of a commit: the record that begins there is replayed, the next one is not. */
function stopFor(target: NamedTarget, position: bigint): bigint {
  return target.kind === 'transaction' && target.inclusive ? position + 1n : position;
}
