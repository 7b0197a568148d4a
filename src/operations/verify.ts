/** Checks what the repository holds, as deep as asked for. Changes nothing. */
import type { RunContext } from '../core/context.ts';
import type { VerifyDepth, VerifyReport } from '../repository/repository.ts';
import type { Workspace } from './workspace.ts';

export type { VerifyDepth, VerifyReport } from '../repository/repository.ts';

export interface VerifyOptions {
  readonly source?: string | undefined;
  /** `content` needs the key: everything is decrypted and authenticated. */
  readonly depth: VerifyDepth;
}

/** Damage is in the report, not thrown. */
export async function verify(
  workspace: Workspace,
  options: VerifyOptions,
  context: RunContext,
): Promise<VerifyReport> {
  const repository = await workspace.repository(context);
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
