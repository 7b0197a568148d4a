/** The slow way to what `wal push` needs: reads the configuration, which keeps it for the next time. */
import { Secrets } from '../core/redaction.ts';
import type { ResolvedConfiguration } from '../core/resolved-config.ts';
import { Workspace } from './workspace.ts';

/** Throws `config.*`. */
export async function resolveConfiguration(config: string | undefined): Promise<ResolvedConfiguration> {
  const { configuration } = await Workspace.load({ config, secrets: new Secrets() });
  const { repository, state, log, sources } = configuration;
  return {
    repository,
    state,
    log,
    sources: Object.values(sources).map(({ name, kind }) => ({ name, kind })),
  };
}
