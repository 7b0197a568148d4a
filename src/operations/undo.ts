/** Brings back what the last restore in place of a source put aside. Needs no repository. */
import type { RunContext } from '../core/context.ts';
import type { Replaced } from '../sources/source.ts';
import type { Workspace } from './workspace.ts';

export type { Replaced } from '../sources/source.ts';

export interface UndoOptions {
  readonly source?: string | undefined;
  /** Start the server afterwards also when it does not run now. */
  readonly start: boolean;
}

/** Throws `recovery.nothing-to-undo`, `recovery.place-unusable`, `recovery.not-stopped`. */
export async function undo(
  workspace: Workspace,
  options: UndoOptions,
  context: RunContext,
): Promise<{
  readonly source: string;
  readonly replaced: Replaced;
  readonly formatPosition: (position: string) => string;
}> {
  const source = workspace.source(options.source);
  const replaced = await source.undoInPlace({ ...context, start: options.start });
  return { source: source.name, replaced, formatPosition: workspace.kind(source.kind).positions.format };
}
