/** The registry of source kinds, and the only importer of them. */
import { HoldfastError } from '../core/errors.ts';
import { postgresKind } from './postgres/source.ts';
import type { Source } from './source.ts';

/** Every kind by its name. Each loads what is heavy when it is used. */
export const sourceKinds = { postgres: postgresKind } as const;

export type SourceKindName = keyof typeof sourceKinds;

/**
 * A source by its configuration. `settings` is what the kind's schema returned, or anything that it accepts.
 * Connects to nothing. Throws `config.invalid` for an unknown kind.
 */
export function openSource(name: string, kind: string, settings: unknown): Source {
  const found = kindOf(kind);
  return found.open(name, found.settings.parse(settings));
}

/** The kind of that name. Throws `config.invalid`. */
export function kindOf(kind: string): (typeof sourceKinds)[SourceKindName] {
  if (Object.hasOwn(sourceKinds, kind)) return sourceKinds[kind as SourceKindName];
  throw new HoldfastError(
    'config.invalid',
    `"${kind}" is not a kind of source; this version knows ${Object.keys(sourceKinds).join(', ')}.`,
  );
}

/** Programs and scratch servers of PostgreSQL, for the quickstart: a server that is ours from its first byte. */
export async function scratchPostgres() {
  const [binaries, server, user] = await Promise.all([
    import('./postgres/binaries.ts'),
    import('./postgres/server.ts'),
    import('./postgres/server-user.ts'),
  ]);
  const { findAllBinaries } = binaries;
  const { initScratchCluster, startServer } = server;
  return { findAllBinaries, initScratchCluster, startServer, serverUser: user.serverUser };
}
