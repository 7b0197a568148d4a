/** Creates a repository with its key kit, and enrols this host as its first writer. */
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { inStep } from '../core/progress.ts';
import { Repository } from '../repository/repository.ts';
import { refuseUnwritable, writeKit } from './key-kit-file.ts';
import type { Workspace } from './workspace.ts';

export interface InitOptions {
  /** Where the key kit goes: a file, or a folder that exists. Default: the current folder. Never overwritten. */
  readonly kit?: string | undefined;
  /** Name of this host in the roster. Default: its host name. */
  readonly writer?: string | undefined;
  /** Folder for a relative `kit`. */
  readonly cwd: string;
}

export interface InitResult {
  readonly repository: string;
  readonly address: string;
  readonly adminKey: string;
  readonly writer: string;
  /** Absolute path of the key kit. */
  readonly keyKit: string;
}

/**
 * The repository exists, durably, when this resolves, and so does the key kit on this host's disk.
 * Throws `repository.exists` where there is one, `config.no-key` where the configuration names no key.
 */
export async function init(
  workspace: Workspace,
  options: InitOptions,
  context: RunContext,
): Promise<InitResult> {
  const unlock = await workspace.unlock(context);
  const recipients = workspace.configuration.key.recipients ?? [];
  if (unlock?.passphrase === undefined && recipients.length === 0) {
    throw new HoldfastError(
      'config.no-key',
      'A new repository needs a passphrase or an age recipient, and the configuration names neither.',
    );
  }
  const folder = resolve(options.cwd, options.kit ?? '.');
  await refuseUnwritable(folder);
  return await inStep(context.progress, 'Create the repository', {}, async () => {
    const store = await workspace.store(context, { create: true });
    const writerName = options.writer ?? writerNameOf(hostname());
    const { repository, kit } = await Repository.create(
      store,
      await workspace.state(),
      {
        writerName,
        recipients,
        ...(unlock?.passphrase === undefined ? {} : { passphrase: unlock.passphrase }),
      },
      context,
    );
    const keyKit = await writeKit(folder, kit);
    return {
      repository: repository.id,
      address: repository.address,
      adminKey: repository.adminKey,
      writer: writerName,
      keyKit,
    };
  });
}

/** Host names may hold what names of writers may not. */
export function writerNameOf(host: string): string {
  const name = host
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return name.slice(0, 40) || 'host';
}
