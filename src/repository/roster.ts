/**
 * The roster (docs/03-format.md §8): who may write, and to whom writers seal. Numbered from 1, chained by
 * digest, signed by the admin key; the highest number counts.
 */
import type { KeyObject } from 'node:crypto';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import { base64, damaged, type Fields, fromBase64, hex, sha256 } from './codec.ts';
import type { JsonObject } from './contract.ts';
import { decodeRecipient } from './recipient.ts';
import { decodeDocument, encodeDocument } from './signed-document.ts';
import { type SigningKey, signerId, verifyingKey } from './signing.ts';

export type WriterRole = 'writer' | 'pruner' | 'drill';

export interface RosterWriter {
  /** Digest of the public key, 16 base32 characters. */
  readonly id: string;
  /** For people: the host's name. */
  readonly name: string;
  readonly publicKey: string;
  readonly role: WriterRole;
  /** Sources it may write; `*` for all. */
  readonly sources: readonly string[];
  /** Milliseconds since 1970. */
  readonly since: number;
}

export interface Roster {
  readonly number: number;
  readonly previous: string | null;
  /** Counts the sets of recipients; packs are not reused across epochs. */
  readonly epoch: number;
  /** `age1…` strings. */
  readonly recipients: readonly string[];
  readonly writers: readonly RosterWriter[];
}

/** A roster with its digest and its keys decoded. */
export class LoadedRoster {
  readonly roster: Roster;
  readonly digest: string;
  /** Raw X25519 public keys to seal to. */
  readonly recipientKeys: readonly Uint8Array[];
  readonly #writers: ReadonlyMap<string, { readonly writer: RosterWriter; readonly key: KeyObject }>;

  constructor(roster: Roster, digest: string) {
    this.roster = roster;
    this.digest = digest;
    this.recipientKeys = roster.recipients.map(decodeRecipient);
    this.#writers = new Map(
      roster.writers.map((writer) => [
        writer.id,
        { writer, key: verifyingKey(fromBase64(writer.publicKey)) },
      ]),
    );
  }

  writer(id: string): RosterWriter | undefined {
    return this.#writers.get(id)?.writer;
  }

  /** The key that must have signed an object of `source` by writer `id`; damage when it may not write it. */
  keyFor(id: string, source: string, what: string): KeyObject {
    const entry = this.#writers.get(id);
    if (entry === undefined) throw damaged(what, `its writer ${id} is not in the roster`);
    const { sources, role } = entry.writer;
    if (role !== 'writer' || !(sources.includes('*') || sources.includes(source))) {
      throw damaged(what, `its writer ${id} may not write the source "${source}"`);
    }
    return entry.key;
  }
}

/** The repository's id is part of the name, so that a creation that was killed half-way hinders no other. */
export const rosterName = (repository: string, number: number): string =>
  `roster/${String(number).padStart(8, '0')}-${repository}.json`;

export function rosterWriter(key: SigningKey, name: string, since: number): RosterWriter {
  return { id: key.id, name, publicKey: base64(key.publicKey), role: 'writer', sources: ['*'], since };
}

export function encodeRoster(repository: string, roster: Roster, admin: SigningKey): Uint8Array {
  const body: JsonObject = {
    format: 1,
    type: 'roster',
    repository,
    number: roster.number,
    previous: roster.previous,
    epoch: roster.epoch,
    recipients: roster.recipients,
    writers: roster.writers.map((writer) => ({ ...writer })),
    revocations: [],
  };
  return encodeDocument('roster', body, admin);
}

export function decodeRoster(
  bytes: Uint8Array,
  repository: string,
  adminKey: Uint8Array,
  what: string,
): LoadedRoster {
  const body = decodeDocument('roster', bytes, adminKey, what);
  const sound =
    body.integer('format') === 1 &&
    body.string('type') === 'roster' &&
    body.string('repository') === repository;
  if (!sound) throw damaged(what, 'it is not a roster of this repository');
  // Ignoring a revocation would accept what the owner has withdrawn.
  if (body.array('revocations').length > 0) {
    throw new HoldfastError(
      'repository.newer-format',
      `The roster ${what} revokes writers, which this version cannot judge.`,
    );
  }
  const writers = body.objects('writers').map((writer) => decodeWriter(writer, what));
  const roster: Roster = {
    number: body.integer('number', 1),
    previous: body.stringOrNull('previous'),
    epoch: body.integer('epoch', 1),
    recipients: body.strings('recipients'),
    writers,
  };
  return new LoadedRoster(roster, hex(sha256(bytes)));
}

function decodeWriter(fields: Fields, what: string): RosterWriter {
  const publicKey = fields.bytes('publicKey', 32);
  const id = fields.string('id');
  if (id !== signerId(publicKey)) throw damaged(what, `the writer "${id}" does not carry its own key`);
  return {
    id,
    name: fields.string('name'),
    publicKey: base64(publicKey),
    role: fields.string('role', /^(writer|pruner|drill)$/) as WriterRole,
    sources: fields.strings('sources'),
    since: fields.integer('since'),
  };
}

/**
 * Loads the whole chain and returns its end. Throws damage when a number is missing, a digest does not chain
 * or a signature fails; `atLeast` is the number that this client has seen before (an older end would be a
 * store that was rolled back).
 */
export async function loadRoster(
  store: ObjectStore,
  repository: string,
  adminKey: Uint8Array,
  atLeast: number,
  signal: AbortSignal,
): Promise<LoadedRoster> {
  let last: LoadedRoster | undefined;
  for (let number = 1; ; number++) {
    const name = rosterName(repository, number);
    let bytes: Uint8Array;
    try {
      bytes = await store.get(name, { signal });
    } catch (error) {
      if (isHoldfastError(error, 'storage.not-found')) break;
      throw error;
    }
    const next = decodeRoster(bytes, repository, adminKey, name);
    if (next.roster.number !== number || next.roster.previous !== (last?.digest ?? null)) {
      throw damaged(name, 'it does not continue the roster before it');
    }
    last = next;
  }
  if (last === undefined) throw damaged(rosterName(repository, 1), 'it is missing');
  if (last.roster.number < atLeast) {
    throw damaged(
      rosterName(repository, atLeast),
      'this host has seen it before and it is gone: the store was rolled back',
    );
  }
  return last;
}
