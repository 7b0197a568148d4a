/** Checks what the repository holds, as deep as asked for. Changes nothing. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { VerifyDepth, VerifyReport } from '../repository/repository.ts';
import type { Workspace } from './workspace.ts';

export type { VerifyDepth, VerifyReport } from '../repository/repository.ts';

export interface VerifyOptions {
  readonly source?: string | undefined;
  /** `content` needs the key: everything is decrypted and authenticated. */
  readonly depth: VerifyDepth;
}

/**
 * Damage is in the report, not thrown. Throws `recovery.nothing-to-restore` when nothing is known of a named
 * source: a mistyped name must not look like one that is undamaged.
 */
export async function verify(
  workspace: Workspace,
  options: VerifyOptions,
  context: RunContext,
): Promise<VerifyReport> {
  const repository = await workspace.repository(context);
  const stored = await repository.sources(context.signal);
  if (options.source !== undefined && !stored.includes(options.source)) {
    const others = stored.length === 0 ? '' : `; it holds ${stored.join(', ')}`;
    throw new HoldfastError(
      'recovery.nothing-to-restore',
      `The repository holds nothing of ${options.source}${others}. Nothing was verified.`,
    );
  }
  const unlock = options.depth === 'content' ? await workspace.requireUnlock(context) : undefined;
  return await repository.verify(
    {
      depth: options.depth,
      ...(unlock === undefined ? {} : { unlock }),
      ...(options.source === undefined ? {} : { source: options.source }),
    },
    context,
  );
}
