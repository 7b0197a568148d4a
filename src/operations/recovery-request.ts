/** What a recovery is planned from. */
import type { LogPartHeader, SnapshotHeader } from '../repository/contract.ts';

/** What is asked for. */
export type RecoveryTarget =
  | { readonly kind: 'latest' }
  /** Microseconds since 1970 UTC. */
  | { readonly kind: 'time'; readonly time: bigint }
  /** Exclusive: the state before this position. A repository position. */
  | { readonly kind: 'position'; readonly position: string }
  /** A transaction by its id: with its commit, or (`inclusive` false) the state just before that. */
  | { readonly kind: 'transaction'; readonly id: bigint; readonly inclusive: boolean }
  /** A named place in the log. */
  | { readonly kind: 'name'; readonly name: string }
  /** The consistent end of one snapshot, without any log. A unique prefix of its id, or `latest`, is enough. */
  | { readonly kind: 'snapshot'; readonly id: string };

export interface RecoveryRequest {
  readonly source: string;
  /** All of the source, in any order. */
  readonly snapshots: readonly SnapshotHeader[];
  /** All of the source that cover its log, in any order. */
  readonly parts: readonly LogPartHeader[];
  readonly target: RecoveryTarget;
  /** Restrict to the history of this lineage; the whole name or what follows its last `/` (a timeline number). */
  readonly lineage: string | null;
  /** Writes a position as people do. */
  readonly formatPosition: (position: string) => string;
}
