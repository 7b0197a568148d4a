/** From the options of `restore` to its target. */
import { HoldfastError } from '../core/errors.ts';
import { parseInstant } from '../core/time.ts';

export type WrittenTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly time: bigint; readonly utc: string }
  | { readonly kind: 'written-position'; readonly text: string }
  | { readonly kind: 'snapshot'; readonly id: string };

export interface TargetOptions {
  readonly at?: string;
  readonly lsn?: string;
  readonly snapshot?: string;
}

/** Throws `command.usage` when several are given, `command.invalid-time`. */
export function targetOf({ at, lsn, snapshot }: TargetOptions, timezone: string): WrittenTarget {
  const given = [at, lsn, snapshot].filter((value) => value !== undefined);
  if (given.length > 1) {
    throw new HoldfastError('command.usage', 'Only one of --at, --lsn and --snapshot can be meant.', {
      next: 'Give one of them, or none for the newest moment.',
    });
  }
  if (at !== undefined) {
    const { micros, utc } = parseInstant(at, { timezone });
    return { kind: 'time', time: micros, utc };
  }
  if (lsn !== undefined) return { kind: 'written-position', text: lsn };
  if (snapshot !== undefined) return { kind: 'snapshot', id: snapshot };
  return { kind: 'latest' };
}
