/** Snapshots and log of sources as the repository's headers tell them. Needs no key. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { LogPartHeader, SnapshotHeader } from '../repository/contract.ts';
import type { Problem, Repository } from '../repository/repository.ts';
import type { Workspace } from './workspace.ts';

export interface SourceCatalogue {
  readonly source: string;
  readonly kind: string;
  readonly snapshots: readonly SnapshotHeader[];
  readonly parts: readonly LogPartHeader[];
  /** What is damaged or missing of it, and so is not among them: whoever wants the newest moment must hear of it. */
  readonly problems: readonly Problem[];
}

/**
 * The catalogue of one source: the named one, else the only one that is configured or in the repository.
 * Throws `recovery.nothing-to-restore` when the repository holds nothing of it, `command.which-source` when
 * several could be meant.
 */
export async function catalogueOf(
  workspace: Workspace,
  repository: Repository,
  name: string | undefined,
  context: RunContext,
): Promise<SourceCatalogue> {
  const problems: Problem[] = [];
  const all = await repository.snapshots(name ?? null, context.signal, problems);
  const source = name ?? onlySource(workspace, all);
  const snapshots = all.filter((snapshot) => snapshot.source === source);
  const kind = snapshots[0]?.kind;
  if (kind === undefined) {
    throw new HoldfastError(
      'recovery.nothing-to-restore',
      `The repository holds no snapshot of ${source} that could be restored.`,
      {
        next: `See what it holds with \`holdfast list\`; take a snapshot with: holdfast backup ${source}`,
        details: { problems: problems.map(({ message }) => message) },
      },
    );
  }
  const parts = await repository.logParts(source, context.signal, problems);
  const ofSource = problems.filter(({ name }) => name.split('/')[1] === source);
  return { source, kind, snapshots, parts, problems: ofSource };
}

function onlySource(workspace: Workspace, snapshots: readonly SnapshotHeader[]): string {
  const stored = [...new Set(snapshots.map((snapshot) => snapshot.source))].sort();
  const configured = Object.keys(workspace.configuration.sources);
  const [only, ...others] = stored.length === 0 ? configured : stored;
  if (only !== undefined && others.length === 0) return only;
  const [one] = configured;
  if (one !== undefined && configured.length === 1 && stored.includes(one)) return one;
  if (only === undefined) {
    throw new HoldfastError('recovery.nothing-to-restore', 'The repository holds no snapshot of any source.');
  }
  throw new HoldfastError(
    'command.which-source',
    `Which source is meant? The repository holds ${stored.join(', ')}.`,
  );
}
