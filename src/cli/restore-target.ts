/** From the options of `restore` to its target. */
import { HoldfastError } from '../core/errors.ts';
import { parseInstant } from '../core/time.ts';

export type WrittenTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly time: bigint; readonly utc: string; readonly inclusive: boolean }
  | { readonly kind: 'written-position'; readonly text: string; readonly inclusive: boolean }
  | { readonly kind: 'transaction'; readonly id: bigint; readonly inclusive: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'snapshot'; readonly id: string };

export interface TargetOptions {
  readonly at?: string;
  readonly lsn?: string;
  readonly xid?: string;
  readonly name?: string;
  readonly snapshot?: string;
  readonly inclusive?: boolean;
  readonly exclusive?: boolean;
}

/**
 * Inclusive by default are a time and a transaction, as people and PostgreSQL mean them; exclusive is a position,
 * because one that was read after a commit is where the next one begins. Throws `command.usage` when several
 * targets are given, `command.invalid-time`.
 */
export function targetOf(options: TargetOptions, timezone: string): WrittenTarget {
  const { at, lsn, xid, name, snapshot } = options;
  const given = [at, lsn, xid, name, snapshot].filter((value) => value !== undefined);
  if (given.length > 1) {
    throw new HoldfastError(
      'command.usage',
      'Only one of --at, --lsn, --xid, --name and --snapshot can be meant.',
      {
        next: 'Give one of them, or none for the newest moment.',
      },
    );
  }
  const sharp = at !== undefined || lsn !== undefined || xid !== undefined;
  if (!sharp && (options.inclusive === true || options.exclusive === true)) {
    throw new HoldfastError(
      'command.usage',
      '--inclusive and --exclusive say whether what is exactly at --at, --lsn or --xid is kept; none of these was given.',
    );
  }
  if (options.inclusive === true && options.exclusive === true) {
    throw new HoldfastError('command.usage', 'Only one of --inclusive and --exclusive can be meant.');
  }
  if (at !== undefined) {
    const { micros, utc } = parseInstant(at, { timezone });
    return { kind: 'time', time: micros, utc, inclusive: options.exclusive !== true };
  }
  if (lsn !== undefined)
    return { kind: 'written-position', text: lsn, inclusive: options.inclusive === true };
  if (xid !== undefined) {
    return { kind: 'transaction', id: transactionId(xid), inclusive: options.exclusive !== true };
  }
  if (name !== undefined) return { kind: 'name', name };
  if (snapshot !== undefined) return { kind: 'snapshot', id: snapshot };
  return { kind: 'latest' };
}

function transactionId(text: string): bigint {
  if (/^[1-9]\d{0,19}$/.test(text)) return BigInt(text);
  throw new HoldfastError('command.usage', `"${text}" is no transaction id.`, {
    next: 'Give the number that pg_current_xact_id() or txid_current() returned, e.g. --xid 742.',
  });
}
