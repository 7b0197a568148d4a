/** One snapshot in full: its header, and with the key what it says about itself and its entries. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Entry, JsonObject, RepositoryReader, SnapshotHeader } from '../repository/contract.ts';
import type { Problem } from '../repository/repository.ts';
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
  /** Damage in the repository's listing: a newer snapshot may be missing from it. */
  readonly problems: readonly Problem[];
  /** Why what the key shows could not be opened although a key is configured; null when it was, or none is. */
  readonly locked: HoldfastError | null;
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
  const problems: Problem[] = [];
  const all = await repository.snapshots(options.source ?? null, context.signal, problems);
  const header = choose(all, options.snapshot, problems);
  const { format } = workspace.kind(header.kind).positions;
  const place = { header, from: format(header.from), to: format(header.to), problems, locked: null };
  let reader: RepositoryReader;
  try {
    const unlock =
      options.onEntry === undefined
        ? await workspace.unlock(context)
        : await workspace.requireUnlock(context);
    if (unlock === null) return { ...place, sealed: null };
    reader = await repository.reader(unlock, context);
  } catch (error) {
    // The header needs no key, so that a wrong one hides only what it would have opened.
    if (options.onEntry !== undefined || !isHoldfastError(error)) throw error;
    return { ...place, sealed: null, locked: error };
  }
  const opened = await reader.openSnapshot(header, context.signal);
  if (options.onEntry !== undefined) {
    for await (const entry of opened.entries(context.signal)) options.onEntry(entry);
  }
  return { ...place, sealed: { meta: opened.meta, warnings: opened.warnings } };
}

function choose(
  all: readonly SnapshotHeader[],
  wanted: string,
  problems: readonly Problem[],
): SnapshotHeader {
  const damage = problems.map(({ message }) => message);
  const newest = all.at(-1);
  if (newest === undefined) {
    const what = damage.length === 0 ? 'no snapshot.' : `no undamaged snapshot. ${damage[0]}`;
    throw new HoldfastError('recovery.nothing-to-restore', `The repository holds ${what}`, {
      details: { problems: damage },
    });
  }
  if (wanted === 'latest') return newest;
  const exact = all.filter((one) => one.id === wanted);
  const [found, ...others] = exact.length > 0 ? exact : all.filter((one) => one.id.startsWith(wanted));
  if (found !== undefined && others.length === 0) return found;
  const why =
    found === undefined ? `There is no snapshot ${wanted}.` : `The id ${wanted} fits several snapshots.`;
  // A damaged one is left out of the list, so that asking for it finds nothing.
  const meant = problems.find(({ name }) => name.includes(`/${wanted}`));
  throw new HoldfastError(
    'recovery.unknown-snapshot',
    meant === undefined ? why : `${why} ${meant.message}`,
    {
      next: `See them with: holdfast list. The newest is ${newest.id}.`,
      details: { snapshot: wanted },
    },
  );
}
