/**
 * Recovery windows as the headers tell them, for lists: nothing is opened, no key is needed. Pure.
 *
 * The edges are moments that can surely be restored: the first is the first that a plan accepts; at the end, after
 * log that a fork cut short, a plan, which looks at commits, may reach a little further.
 */
import type { LogPartHeader, SnapshotHeader } from '../repository/contract.ts';
import { branchesByHeaders } from './recovery-branches.ts';
import { compare, forkOf, type History, histories, type Stretch, stretchesOf } from './recovery-history.ts';
import { knownSince } from './recovery-time.ts';

export interface RecoveryWindow {
  /** The history that the window lies in. */
  readonly lineage: string;
  /** First and last restorable position; a bare snapshot has one. */
  readonly fromPosition: string;
  readonly toPosition: string;
  /** First and last moment that `--at` reaches, microseconds since 1970; null where no time can be told. */
  readonly fromTime: bigint | null;
  readonly toTime: bigint | null;
  readonly snapshots: number;
  readonly newestSnapshot: string;
  readonly parts: number;
  /** Plaintext and stored bytes of its log. */
  readonly logBytes: number;
  readonly storedBytes: number;
}

/** Log is missing between two positions of one history. */
export interface RecoveryGap {
  readonly lineage: string;
  readonly fromPosition: string;
  readonly toPosition: string;
  /** Last commit known before and first restorable moment after, microseconds since 1970. */
  readonly fromTime: bigint | null;
  readonly toTime: bigint | null;
}

/** Log to which no snapshot leads. */
export interface OrphanLog {
  readonly lineage: string;
  readonly fromPosition: string;
  readonly toPosition: string;
}

export interface RecoveryRanges {
  readonly windows: readonly RecoveryWindow[];
  readonly gaps: readonly RecoveryGap[];
  readonly orphans: readonly OrphanLog[];
}

/** Of one source; parts that cover its log, in any order. */
export function recoveryRanges(
  storedSnapshots: readonly SnapshotHeader[],
  storedParts: readonly LogPartHeader[],
): RecoveryRanges {
  const { snapshots, parts } = branchesByHeaders({ snapshots: storedSnapshots, parts: storedParts });
  const all = histories([...snapshots, ...parts]).map((history) => ({
    history,
    stretches: stretchesOf(history, snapshots, parts),
  }));
  const windows: RecoveryWindow[] = [];
  const gaps: RecoveryGap[] = [];
  const orphans: OrphanLog[] = [];
  for (const { history, stretches } of all) {
    const own = stretches.filter((stretch) => !isShared(stretch, all));
    for (const stretch of own) {
      if (stretch.snapshots.length > 0) windows.push(windowOf(stretch));
      else orphans.push({ lineage: history.lineage, fromPosition: stretch.from, toPosition: stretch.to });
    }
    // Between bare snapshots nothing was promised that could be missing.
    const logged = stretches.filter((stretch) => stretch.pieces.length > 0);
    logged.forEach((stretch, index) => {
      const before = logged[index - 1];
      if (before === undefined || !own.includes(stretch)) return;
      gaps.push(gapBetween(history, before, stretch));
    });
  }
  return { windows: windows.sort(byEnd), gaps: gaps.sort(byEnd), orphans };
}

function byEnd(a: { readonly toPosition: string }, b: { readonly toPosition: string }): number {
  return compare(a.toPosition, b.toPosition);
}

/** Told by a descendant's history already, which holds all of it. */
function isShared(
  stretch: Stretch,
  all: readonly { readonly history: History; readonly stretches: readonly Stretch[] }[],
): boolean {
  const { lineage } = stretch.history;
  return all.some(({ history, stretches }) => {
    if (history.lineage === lineage) return false;
    const fork = forkOf(history, lineage);
    if (fork === undefined || fork === null || fork < stretch.to) return false;
    return stretches.some((other) => other.from === stretch.from && stretch.to <= other.to);
  });
}

function windowOf(stretch: Stretch): RecoveryWindow {
  const oldest = stretch.snapshots[0]!;
  const since = knownSince(oldest);
  const last = lastTime(stretch, oldest.to);
  const timed = last !== null && last >= since;
  return {
    lineage: stretch.history.lineage,
    fromPosition: oldest.to,
    toPosition: stretch.to,
    fromTime: timed ? since : null,
    toTime: timed ? last : null,
    snapshots: stretch.snapshots.length,
    newestSnapshot: stretch.snapshots.at(-1)!.id,
    parts: stretch.cover.length,
    logBytes: stretch.cover.reduce((sum, piece) => sum + piece.part.bytes, 0),
    storedBytes: stretch.cover.reduce((sum, piece) => sum + piece.part.storedBytes, 0),
  };
}

function lastTime(stretch: Stretch, from: string): bigint | null {
  let last: bigint | null = null;
  for (const piece of stretch.cover) {
    // A part that is cut short by a fork may name commits that lie beyond it.
    if (piece.to !== piece.part.to || piece.to <= from || piece.part.times === null) continue;
    const max = BigInt(piece.part.times.max);
    if (last === null || max > last) last = max;
  }
  return last;
}

function gapBetween(history: History, before: Stretch, after: Stretch): RecoveryGap {
  const oldest = after.snapshots[0];
  return {
    lineage: history.lineage,
    fromPosition: before.to,
    toPosition: after.from,
    fromTime: lastTime(before, '') ?? null,
    toTime: oldest === undefined ? null : knownSince(oldest),
  };
}
