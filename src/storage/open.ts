/** From the address of a repository to its store. The only importer of the kinds of stores. */
import { fileURLToPath } from 'node:url';
import { systemClock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import { withDeadline } from './deadline.ts';
import { LocalStore } from './local.ts';
import { type ResilienceOptions, resilient } from './resilient.ts';
import type { ObjectStore } from './store.ts';

export type { ResilienceOptions, WaitInfo } from './resilient.ts';

/** A dead network file system answers nothing at all; a sleeping disk takes ten seconds. */
const openMs = 30_000;

export interface OpenStoreOptions {
  /** Creates the folder where there is none yet (`init`). Default: it must exist. */
  readonly create?: boolean;
  readonly log?: Logger;
  /** Ends the opening; calls take their own. */
  readonly signal?: AbortSignal;
  /**
   * Retries, deadlines and limits of every call; `false` for the bare store. The default retries for a minute.
   * A capture gives `{ totalMs: Infinity, retryFull: true }` and waits until its signal is aborted.
   */
  readonly resilience?: ResilienceOptions | false;
}

/**
 * Opens the store at `address`: a path, or a `file:` URL. Reads and writes nothing but the folder's existence,
 * and does not wait for it to appear: rejects with `storage.unreachable` where there is none, with `storage.timeout` where
 * its file system hangs, with `storage.unsupported`
 * for addresses of other kinds.
 */
export async function openStore(address: string, options: OpenStoreOptions = {}): Promise<ObjectStore> {
  const folder = folderOf(address);
  const timedOut = () =>
    new HoldfastError(
      'storage.timeout',
      `The repository's folder ${folder} did not answer within ${openMs / 1000} s: its file system hangs.`,
    );
  const clock = (options.resilience || undefined)?.clock ?? systemClock;
  const store = await withDeadline({ clock, ms: openMs, signal: options.signal, timedOut }, () =>
    LocalStore.open(folder, {
      create: options.create ?? false,
      ...(options.log === undefined ? {} : { log: options.log }),
    }),
  );
  return options.resilience === false ? store : resilient(store, options.resilience);
}

function folderOf(address: string): string {
  // One letter before the colon is a drive and not a scheme.
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(address)?.[1]?.toLowerCase();
  if (address.trim() === '') throw unsupported('The address of the repository is empty.');
  if (scheme === undefined) return address;
  if (scheme !== 'file') {
    // The address itself is not repeated: it may hold a password.
    throw unsupported(`Repositories at ${scheme}: addresses are not supported yet.`);
  }
  try {
    return fileURLToPath(address);
  } catch (cause) {
    throw unsupported(`The file: address of the repository is malformed.`, cause);
  }
}

function unsupported(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('storage.unsupported', message, { cause });
}
