/** The wrapped keys of a repository: who can open it. */
import { resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { readSecretFile } from '../core/secret.ts';
import type { KeyInfo } from '../repository/repository.ts';
import { writeKit } from './key-kit-file.ts';
import type { Workspace } from './workspace.ts';

export interface AddKeyOptions {
  /** A file with the new passphrase. */
  readonly passphraseFile?: string | undefined;
  /** Age recipients, `age1…`. */
  readonly recipients?: readonly string[] | undefined;
  readonly label?: string | undefined;
  readonly cwd: string;
}

export interface KeysResult {
  readonly repository: string;
  readonly address: string;
  readonly keys: readonly KeyInfo[];
}

/** Needs no key. */
export async function listKeys(workspace: Workspace, context: RunContext): Promise<KeysResult> {
  const repository = await workspace.repository(context);
  return {
    repository: repository.id,
    address: repository.address,
    keys: await repository.keys(context.signal),
  };
}

/** Wraps the secrets once more; the keys there are stay valid. Needs one of them. */
export async function addKey(
  workspace: Workspace,
  options: AddKeyOptions,
  context: RunContext,
): Promise<KeyInfo> {
  const { passphraseFile, recipients = [], cwd } = options;
  if ((passphraseFile === undefined) === (recipients.length === 0)) {
    throw new HoldfastError(
      'command.usage',
      'A new key is either a passphrase or age recipients: give one of --passphrase-file and --recipient.',
    );
  }
  const secrets = { secrets: workspace.secrets, signal: context.signal };
  const passphrase =
    passphraseFile === undefined ? null : await readSecretFile(resolve(cwd, passphraseFile), secrets);
  const repository = await workspace.repository(context);
  const unlock = await workspace.requireUnlock(context);
  const label = options.label ?? (passphrase === null ? 'recipients' : 'passphrase');
  const wrapping = passphrase === null ? { label, recipients } : { label, passphrase: passphrase.value };
  return await repository.addKey(unlock, wrapping, context);
}

/** Writes the key kit as it would be printed now, with all keys there are. Never overwrites. Returns its path. */
export async function saveKeyKit(
  workspace: Workspace,
  options: { readonly to?: string | undefined; readonly cwd: string },
  context: RunContext,
): Promise<string> {
  const repository = await workspace.repository(context);
  const kit = await repository.kit(context.signal);
  return await writeKit(resolve(options.cwd, options.to ?? '.'), kit);
}
