/**
 * `holdfast.json`: what a repository says about itself (docs/03-format.md §8), and what a client pinned of it.
 */
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import { base64, damaged, fromBase64 } from './codec.ts';
import type { LocalState } from './local-state.ts';
import { decodeDocument, parseDocument } from './signed-document.ts';

export const ROOT = 'holdfast.json';
/** The newest format that this code reads. */
export const FORMAT = 1;

export interface Root {
  readonly id: string;
  readonly adminKey: Buffer;
  readonly created: number;
}

export async function readRoot(store: ObjectStore, signal: AbortSignal): Promise<Root> {
  let bytes: Uint8Array;
  try {
    bytes = await store.get(ROOT, { signal });
  } catch (error) {
    if (!isHoldfastError(error, 'storage.not-found')) throw error;
    throw new HoldfastError('repository.not-found', `There is no Holdfast repository at ${store.address}.`);
  }
  checkFormat(bytes, store.address);
  const unchecked = parseDocument(bytes, ROOT).body;
  const adminKey = fromBase64(unchecked.string('adminKey'));
  if (adminKey.length !== 32) throw damaged(ROOT, 'its admin key is malformed');
  const body = decodeDocument('repository', bytes, adminKey, ROOT);
  return { id: body.string('repository', /^[a-z2-7]{16}$/), adminKey, created: body.integer('created') };
}

/** Looks at the format before anything else is parsed: a later one may be different in every other way. */
function checkFormat(bytes: Uint8Array, address: string): void {
  let format: unknown;
  try {
    format = (JSON.parse(Buffer.from(bytes).toString('utf8')) as { body?: { format?: unknown } }).body
      ?.format;
  } catch (cause) {
    throw damaged(ROOT, 'it is not JSON', cause);
  }
  if (typeof format === 'number' && format > FORMAT) {
    throw new HoldfastError(
      'repository.newer-format',
      `The repository at ${address} has format ${format}; this Holdfast reads formats up to ${FORMAT}.`,
    );
  }
}

/** Checks what was read against what this host pinned; returns the highest roster that it has seen. */
export async function checkPins(root: Root, address: string, state: LocalState | null) {
  const pin = (await state?.readPin(root.id)) ?? undefined;
  const atAddress = await state?.pinOfAddress(address);
  const other = atAddress !== undefined && atAddress.repository !== root.id;
  if (other || (pin !== undefined && pin.adminKey !== base64(root.adminKey))) {
    throw notThePinned(address, root.id, atAddress?.repository ?? root.id, state);
  }
  return pin;
}

export function notThePinned(
  address: string,
  found: string | undefined,
  known: string,
  state: LocalState | null,
): HoldfastError {
  const what =
    found === undefined
      ? `At ${address} is no repository, but this host knows ${known} there.`
      : found === known
        ? `At ${address} is the repository ${known}, but with another admin key than this host knows.`
        : `At ${address} is the repository ${found}, but this host knows ${known} there.`;
  return new HoldfastError('repository.not-the-pinned-one', what, {
    details: { found: found ?? null, known, state: state?.directory ?? null },
  });
}
