/** One snapshot in full: its header, and with the key what it says about itself and its entries. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Entry, JsonObject, SnapshotHeader } from '../repository/contract.ts';
import type { Workspace } from './workspace.ts';

export interface ShowOptions {
  /** Id, or a beginning of it that fits only one; `latest` for the newest. */
  readonly snapshot: string;
  readonly source?: string | undefined;
  /** Called for each entry, in order; needs the key. */
  readonly onEntry?: (entry: Entry) => void;
}

export interface ShownSnapshot {
  readonly header: SnapshotHeader;
  readonly from: string;
  readonly to: string;
  /** What only the key shows; null without one. */
  readonly sealed: { readonly meta: JsonObject; readonly warnings: readonly string[] } | null;
}

/** Throws `recovery.unknown-snapshot`; with `onEntry` also `config.no-key` and `repository.wrong-key`. */
export async function show(
  workspace: Workspace,
  options: ShowOptions,
  context: RunContext,
): Promise<ShownSnapshot> {
  const repository = await workspace.repository(context);
  const all = await repository.snapshots(options.source ?? null, context.signal);
  const header = choose(all, options.snapshot);
  const { format } = workspace.kind(header.kind).positions;
  const place = { header, from: format(header.from), to: format(header.to) };
  const unlock =
    options.onEntry === undefined ? await workspace.unlock(context) : await workspace.requireUnlock(context);
  if (unlock === null) return { ...place, sealed: null };
  const reader = await repository.reader(unlock, context);
  const opened = await reader.openSnapshot(header, context.signal);
  if (options.onEntry !== undefined) {
    for await (const entry of opened.entries(context.signal)) options.onEntry(entry);
  }
  return { ...place, sealed: { meta: opened.meta, warnings: opened.warnings } };
}

function choose(all: readonly SnapshotHeader[], wanted: string): SnapshotHeader {
  const newest = all.at(-1);
  if (newest === undefined) {
    throw new HoldfastError('recovery.nothing-to-restore', 'The repository holds no snapshot.');
  }
  if (wanted === 'latest') return newest;
  const exact = all.filter((one) => one.id === wanted);
  const [found, ...others] = exact.length > 0 ? exact : all.filter((one) => one.id.startsWith(wanted));
  if (found !== undefined && others.length === 0) return found;
  const why =
    found === undefined ? `There is no snapshot ${wanted}.` : `The id ${wanted} fits several snapshots.`;
  throw new HoldfastError('recovery.unknown-snapshot', why, {
    next: `See them with: holdfast list. The newest is ${newest.id}.`,
    details: { snapshot: wanted },
  });
}
