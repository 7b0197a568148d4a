/** Secrets by file, environment or command; never by argument. */
import { open } from 'node:fs/promises';
import type { KeySettings } from './configuration.ts';
import { HoldfastError, systemErrorCode } from './errors.ts';
import { runProcess } from './process.ts';
import type { Secrets } from './redaction.ts';

export interface ResolvedSecret {
  readonly value: string;
  /** Where it came from, for messages, e.g. `file /etc/holdfast/passphrase`. */
  readonly origin: string;
  /** What is risky about the place, with the command that mends it. */
  readonly warnings: readonly { readonly message: string; readonly remedy: string }[];
}

export interface ResolveOptions {
  /** What was read is added here at once. */
  readonly secrets: Secrets;
  readonly signal?: AbortSignal | undefined;
  /** For a command, in ms. Default 60,000. */
  readonly deadlineMs?: number;
}

// A passphrase or an identity is a line or two; more is the wrong file.
const maxSecretBytes = 64 * 1024;

/**
 * The passphrase, or null where the settings name none.
 * One line break at its end is dropped, nothing else.
 * @throws `config.no-key` when its variable is not set or it is empty, `config.unreadable`, `system.process-failed`.
 */
export async function resolvePassphrase(
  key: KeySettings,
  options: ResolveOptions,
): Promise<ResolvedSecret | null> {
  if (key.missingVariables !== undefined && key.missingVariables.length > 0) {
    const names = key.missingVariables.join(', ');
    throw new HoldfastError('config.no-key', `The passphrase comes from ${names}, which is not set.`, {
      next: `Set ${names}, or change \`key\` in the configuration.`,
    });
  }
  if (key.passphrase !== undefined) return finish(key.passphrase, 'configuration', [], options);
  if (key.passphraseFile !== undefined) return readSecretFile(key.passphraseFile, options);
  const [command, ...args] = key.passphraseCommand ?? [];
  if (command === undefined) return null;
  const result = await runProcess(command, args, {
    signal: options.signal,
    deadlineMs: options.deadlineMs ?? 60_000,
    maxOutputBytes: maxSecretBytes,
    secrets: options.secrets,
    // What it prints is the secret: should it fail, its output must not become part of a message.
    hideOutput: true,
  });
  return finish(result.stdout.toString('utf8'), `command ${command}`, [], options);
}

/** The passphrase. @throws as `resolvePassphrase`, and `config.no-key` where the settings name none. */
export async function requirePassphrase(key: KeySettings, options: ResolveOptions): Promise<ResolvedSecret> {
  const found = await resolvePassphrase(key, options);
  if (found !== null) return found;
  throw new HoldfastError(
    'config.no-key',
    'This command needs the passphrase of the repository, and none is configured.',
  );
}

/**
 * A file that holds a secret, without the one line break at its end. A file that everybody may read is used,
 * with a warning: container platforms mount secrets so.
 * @throws `config.unreadable`, `config.no-key` when it is empty.
 */
export async function readSecretFile(path: string, options: ResolveOptions): Promise<ResolvedSecret> {
  try {
    await using handle = await open(path, 'r');
    const { mode, size } = await handle.stat();
    if (size > maxSecretBytes) {
      throw new HoldfastError('config.unreadable', `${path} is too large (${size} bytes) to hold a secret.`);
    }
    const text = (await handle.readFile()).toString('utf8');
    const warnings =
      (mode & 0o004) === 0
        ? []
        : [
            {
              message: `${path} holds a secret, and every user of this machine may read it.`,
              remedy: `chmod o= '${path}'`,
            },
          ];
    return finish(text, `file ${path}`, warnings, options);
  } catch (error) {
    if (error instanceof HoldfastError) throw error;
    const code = systemErrorCode(error);
    const why =
      code === 'ENOENT'
        ? 'there is no such file'
        : code === 'EACCES'
          ? 'this user may not read it'
          : String(error);
    throw new HoldfastError('config.unreadable', `Could not read the secret in ${path}: ${why}.`, {
      details: { path },
      cause: error,
    });
  }
}

function finish(
  text: string,
  origin: string,
  warnings: ResolvedSecret['warnings'],
  { secrets }: ResolveOptions,
): ResolvedSecret {
  const value = text.replace(/\r?\n$/, '');
  if (value === '') throw new HoldfastError('config.no-key', `The secret from ${origin} is empty.`);
  secrets.add(value);
  return { value, origin, warnings };
}
