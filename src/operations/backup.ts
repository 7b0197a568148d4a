/** Takes a snapshot of one source now. */

import { hostname } from 'node:os';
import type { RunContext } from '../core/context.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { RepositoryWriter, SnapshotHeader, SnapshotStats } from '../repository/contract.ts';
import type { Repository } from '../repository/repository.ts';
import { type InitResult, init, writerNameOf } from './init.ts';
import type { Workspace } from './workspace.ts';

export interface BackupOptions {
  readonly source?: string | undefined;
  /** Store everything again, also what has not changed. */
  readonly full?: boolean | undefined;
  /** Folder for a key kit that a first backup writes. */
  readonly cwd: string;
}

export interface BackupResult {
  readonly source: string;
  readonly kind: string;
  readonly address: string;
  readonly snapshot: SnapshotHeader;
  readonly stats: SnapshotStats;
  readonly warnings: readonly string[];
  readonly formatPosition: (position: string) => string;
  /** What this run created because it was the first in zero-configuration mode. */
  readonly created: InitResult | null;
  /** The name under which this host was enrolled by this run. */
  readonly enrolled: string | null;
}

/**
 * The snapshot exists, durably and complete, when this resolves; a run that fails or is killed leaves nothing
 * that counts.
 */
export async function backup(
  workspace: Workspace,
  options: BackupOptions,
  context: RunContext,
): Promise<BackupResult> {
  const source = workspace.source(options.source);
  const { repository, created } = await openOrCreate(workspace, options.cwd, context);
  const { writer, enrolled } = await writerOf(workspace, repository, context);
  const run = await writer.beginSnapshot({ source: source.name, kind: source.kind }, context);
  try {
    const facts = await source.snapshot({ ...context, sink: run, full: options.full === true });
    const { header, stats } = await run.publish(facts);
    const { repository: address } = workspace.configuration;
    const formatPosition = workspace.kind(source.kind).positions.format;
    const { warnings } = facts;
    return {
      source: source.name,
      kind: source.kind,
      address,
      snapshot: header,
      stats,
      warnings,
      formatPosition,
      created,
      enrolled,
    };
  } finally {
    await run.discard();
  }
}

/** Without a configuration file the first backup makes the repository; with one, only `init` does. */
async function openOrCreate(
  workspace: Workspace,
  cwd: string,
  context: RunContext,
): Promise<{ readonly repository: Repository; readonly created: InitResult | null }> {
  try {
    return { repository: await workspace.repository(context), created: null };
  } catch (error) {
    if (!workspace.zeroConfiguration || !(await isFirstUse(workspace, error))) throw error;
  }
  const created = await init(workspace, { cwd }, context);
  // Said at once: should the backup itself fail, the next run finds a repository and has nothing to say about it.
  context.log.info(
    'This was the first backup: created the repository. Keep its key kit outside this machine.',
    {
      repository: created.address,
      keyKit: created.keyKit,
    },
  );
  return { repository: await workspace.repository(context), created };
}

/**
 * A repository that this host has used at this address before and that is gone is no first use: the disk may
 * not be mounted, and a new repository in its place would hide that.
 */
async function isFirstUse(workspace: Workspace, error: unknown): Promise<boolean> {
  if (!isHoldfastError(error, 'repository.not-found') && !isHoldfastError(error, 'storage.unreachable'))
    return false;
  const state = await workspace.state();
  return (await state.pinOfAddress(workspace.configuration.repository)) === undefined;
}

/** This host's writer; enrols the host where the key is at hand. */
export async function writerOf(
  workspace: Workspace,
  repository: Repository,
  context: RunContext,
): Promise<{ readonly writer: RepositoryWriter; readonly enrolled: string | null }> {
  try {
    return { writer: await repository.writer(), enrolled: null };
  } catch (error) {
    if (!isHoldfastError(error, 'repository.writer-not-enrolled')) throw error;
    const unlock = await workspace.unlock(context);
    if (unlock === null) throw error;
    const name = writerNameOf(hostname());
    await repository.enrolThisHost(unlock, name, context);
    context.log.info('This host was enrolled as a writer of the repository.', { writer: name });
    return { writer: await repository.writer(), enrolled: name };
  }
}
