/** What the repository holds: snapshots, recovery windows and gaps of each source. Needs no key. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { LogPartHeader, SnapshotHeader } from '../repository/contract.ts';

export type { SnapshotHeader } from '../repository/contract.ts';

import type { Problem } from '../repository/repository.ts';
import { type RecoveryRanges, recoveryRanges } from './recovery-windows.ts';
import type { Workspace } from './workspace.ts';

export interface ListedSource {
  readonly source: string;
  readonly kind: string;
  /** Oldest first. */
  readonly snapshots: readonly SnapshotHeader[];
  readonly ranges: RecoveryRanges;
  readonly formatPosition: (position: string) => string;
  readonly logParts: number;
  /** Bytes in the store: of snapshots and of log. */
  readonly storedBytes: number;
  /** When the newest log part was stored, milliseconds since 1970; null without log. */
  readonly newestLogAt: number | null;
}

export interface Listing {
  readonly repository: string;
  readonly address: string;
  readonly sources: readonly ListedSource[];
  /** Objects that are damaged or not signed by an enrolled writer: they do not count. */
  readonly problems: readonly Problem[];
  /** The moment to which ages refer, milliseconds since 1970. */
  readonly now: number;
}

/** Lists one source or all. Throws `recovery.nothing-to-restore` when nothing is known of a named source. */
export async function list(
  workspace: Workspace,
  options: { readonly source?: string | undefined },
  context: RunContext,
): Promise<Listing> {
  const repository = await workspace.repository(context);
  const problems: Problem[] = [];
  const stored = await repository.sources(context.signal);
  const names = options.source === undefined ? stored : stored.filter((name) => name === options.source);
  if (options.source !== undefined && names.length === 0) {
    throw new HoldfastError(
      'recovery.nothing-to-restore',
      `The repository holds nothing of ${options.source}${stored.length === 0 ? '' : `; it holds ${stored.join(', ')}`}.`,
    );
  }
  const sources: ListedSource[] = [];
  for (const name of names) {
    const snapshots = await repository.snapshots(name, context.signal, problems);
    const parts = await repository.logParts(name, context.signal, problems);
    sources.push(listed(workspace, name, snapshots, parts));
  }
  const { id, address } = repository;
  return { repository: id, address, sources, problems, now: context.clock.now() };
}

function listed(
  workspace: Workspace,
  source: string,
  snapshots: readonly SnapshotHeader[],
  parts: readonly LogPartHeader[],
): ListedSource {
  const kind = snapshots[0]?.kind ?? parts[0]?.kind ?? 'unknown';
  const stored = [...snapshots, ...parts].reduce((sum, item) => sum + item.storedBytes, 0);
  const newest = parts.reduce((latest, part) => Math.max(latest, part.storedAt), 0);
  return {
    source,
    kind,
    snapshots,
    ranges: recoveryRanges(snapshots, parts),
    formatPosition: kind === 'unknown' ? (position) => position : workspace.kind(kind).positions.format,
    logParts: parts.length,
    storedBytes: stored,
    newestLogAt: newest === 0 ? null : newest,
  };
}
