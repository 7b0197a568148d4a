/**
 * Wrapped secrets (docs/03-format.md §9): `keys/<label>-<random>.data.age` holds the decryption identity,
 * `….admin.age` the admin signing key, each an age file that the age tool opens as well. The same secret may
 * be wrapped many times, for passphrases and age recipients.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import type { Problem } from './catalog.ts';
import { base32, base64, fromBase64 } from './codec.ts';
import { decodeIdentity, decodeRecipient } from './recipient.ts';
import { type SigningKey, signingKey } from './signing.ts';

/**
 * 64 MiB for a passphrase's derivation. age's default (18) takes 256 MiB by itself, which is all that one
 * operation may use.
 */
const SCRYPT_LOG_N = 16;
/** Shorter passphrases are guessed from a stolen repository too fast to be called encryption. */
const PASSPHRASE_LEAST = 8;
const LABEL = /^[a-z0-9][a-z0-9-]{0,39}$/;
const KEY_NAME = /^keys\/([a-z0-9-]{1,40})-([a-z2-7]{8})\.(data|admin)\.age$/;

export type KeyOpens = 'data' | 'admin';

/** What a person proves with that they may open the repository. */
export interface Unlock {
  readonly passphrase?: string;
  /** An age identity, `AGE-SECRET-KEY-1…`. */
  readonly identity?: string;
}

/** For whom a secret is wrapped: one passphrase, or age recipients. */
export interface Wrapping {
  readonly label: string;
  readonly passphrase?: string;
  readonly recipients?: readonly string[];
}

export interface WrappedKey {
  readonly name: string;
  readonly opens: KeyOpens;
  /** The age file. */
  readonly content: Uint8Array;
}

export interface KeyInfo {
  readonly id: string;
  readonly label: string;
  readonly type: 'passphrase' | 'age';
  readonly opens: readonly KeyOpens[];
}

export function checkPassphrase(passphrase: string): void {
  if (passphrase.length < PASSPHRASE_LEAST) {
    throw new HoldfastError(
      'repository.weak-passphrase',
      `The passphrase has ${passphrase.length} characters; at least ${PASSPHRASE_LEAST} are needed.`,
    );
  }
}

/** Wraps one secret. Throws `repository.weak-passphrase`, `repository.bad-recipient`. */
async function wrap(secret: string, wrapping: Wrapping): Promise<Uint8Array> {
  // Loaded when used: its curves take a tenth of a second that `list` and `backup` need not spend.
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  if (wrapping.passphrase !== undefined) {
    checkPassphrase(wrapping.passphrase);
    encrypter.setPassphrase(wrapping.passphrase);
    encrypter.setScryptWorkFactor(SCRYPT_LOG_N);
  } else {
    for (const recipient of wrapping.recipients ?? []) {
      decodeRecipient(recipient);
      encrypter.addRecipient(recipient);
    }
  }
  return await encrypter.encrypt(secret);
}

/** Wraps the decryption identity and the admin seed separately, under one label. */
export async function wrapKeys(
  identity: string,
  adminSeed: Uint8Array,
  wrapping: Wrapping,
): Promise<WrappedKey[]> {
  if (!LABEL.test(wrapping.label)) {
    throw new HoldfastError('command.usage', `The key label "${wrapping.label}" is not of a-z, 0-9 and "-".`);
  }
  const random = base32(randomBytes(5));
  const name = (opens: KeyOpens) => `keys/${wrapping.label}-${random}.${opens}.age`;
  return [
    { name: name('data'), opens: 'data', content: await wrap(`${identity}\n`, wrapping) },
    { name: name('admin'), opens: 'admin', content: await wrap(`${base64(adminSeed)}\n`, wrapping) },
  ];
}

const isPassphraseFile = (content: Uint8Array): boolean =>
  Buffer.from(content.subarray(0, 64)).toString('latin1').includes('-> scrypt ');

async function unwrap(content: Uint8Array, unlock: Unlock): Promise<string | undefined> {
  const { Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
  if (isPassphraseFile(content)) {
    if (unlock.passphrase === undefined) return undefined;
    decrypter.addPassphrase(unlock.passphrase);
  } else {
    if (unlock.identity === undefined) return undefined;
    decrypter.addIdentity(unlock.identity.trim());
  }
  try {
    return (await decrypter.decrypt(content, 'text')).trim();
  } catch {
    // age does not tell a wrong passphrase from another recipient's file: the next key is tried.
    return undefined;
  }
}

export async function readKeys(store: ObjectStore, signal: AbortSignal): Promise<WrappedKey[]> {
  const keys: WrappedKey[] = [];
  for await (const { name } of store.list('keys/', { signal })) {
    const match = KEY_NAME.exec(name);
    if (!match) continue;
    const content = unarmored(await store.get(name, { signal }));
    keys.push({ name, opens: match[3] as KeyOpens, content });
  }
  return keys;
}

/**
 * What is wrong with the wrapped secrets, without opening any: while backups go on without them, nobody could read
 * these any more. Not an age file, or no wrapping at all of one of the two secrets.
 */
export async function keyProblems(store: ObjectStore, signal: AbortSignal): Promise<Problem[]> {
  const keys = await readKeys(store, signal);
  const problems: Problem[] = [];
  const problem = (name: string, message: string) =>
    problems.push({ name, code: 'repository.damaged', message: `${message} ${whereCopiesAre}` });
  const sound = keys.filter((key) => {
    if (isAgeFile(key.content)) return true;
    problem(key.name, `${key.name} is damaged: it is not an age file.`);
    return false;
  });
  const lost = (opens: KeyOpens) => !sound.some((key) => key.opens === opens);
  if (lost('data')) problem('keys/', 'keys/ holds no wrapped data key: nothing stored here can be read.');
  if (lost('admin'))
    problem('keys/', 'keys/ holds no wrapped admin key: no host and no key can be added any more.');
  return problems;
}

const whereCopiesAre =
  'The key kit holds copies: put its age files back under keys/, or open them with `age -d`.';

/** The header of age's format v1: its version line, a recipient, and the MAC line that ends it. */
const isAgeFile = (content: Uint8Array): boolean =>
  /^age-encryption\.org\/v1\n-> \S[^\n]*\n(?:[^\n]*\n)*?--- [A-Za-z0-9+/]{43}\n[\s\S]{32,}$/.test(
    Buffer.from(content).toString('latin1'),
  );

export function describeKeys(keys: readonly WrappedKey[]): KeyInfo[] {
  const infos = new Map<string, KeyInfo>();
  for (const key of keys) {
    const [, label = '', random = ''] = KEY_NAME.exec(key.name) ?? [];
    const id = `${label}-${random}`;
    const known = infos.get(id);
    infos.set(id, {
      id,
      label,
      type: isPassphraseFile(key.content) ? 'passphrase' : 'age',
      opens: [...(known?.opens ?? []), key.opens].sort(),
    });
  }
  return [...infos.values()];
}

async function openKey<T>(
  keys: readonly WrappedKey[],
  opens: KeyOpens,
  unlock: Unlock,
  accept: (secret: string) => T | undefined,
): Promise<T> {
  if (unlock.passphrase === undefined && unlock.identity === undefined) {
    throw new HoldfastError(
      'repository.locked',
      'No passphrase and no age identity was given to open the repository.',
    );
  }
  if (unlock.identity !== undefined) decodeIdentity(unlock.identity);
  for (const key of keys) {
    if (key.opens !== opens) continue;
    const secret = await unwrap(key.content, unlock);
    // A key left by a creation that was killed opens with the same passphrase, but is not this repository's.
    const accepted = secret === undefined ? undefined : accept(secret);
    if (accepted !== undefined) return accepted;
  }
  if (!keys.some((key) => key.opens === opens)) {
    throw new HoldfastError(
      'repository.damaged',
      `keys/ of the repository ${keys.length === 0 ? 'is empty' : `holds no wrapped ${opens} key`}: there is nothing that a passphrase or an identity could open. The key kit holds copies.`,
      {
        next: 'Put the age files of the key kit back under keys/ of the repository, under the names that it gives them; or take them from a copy of the repository. Then run the command again.',
      },
    );
  }
  const given = unlock.passphrase === undefined ? 'age identity' : 'passphrase';
  const infos = describeKeys(keys);
  throw new HoldfastError(
    'repository.wrong-key',
    `The ${given} given opens none of the ${infos.length} keys of this repository.`,
    { details: { keys: infos.map((key) => `${key.id} (${key.type})`) } },
  );
}

/** The decryption identity for which `isOurs` holds. Throws `repository.wrong-key`, `repository.locked`. */
export async function openDataKey(
  keys: readonly WrappedKey[],
  unlock: Unlock,
  isOurs: (identity: string) => boolean,
): Promise<string> {
  return await openKey(keys, 'data', unlock, (secret) => (isOurs(secret) ? secret : undefined));
}

/** The admin key for which `isOurs` holds. Throws `repository.wrong-key`, `repository.locked`. */
export async function openAdminKey(
  keys: readonly WrappedKey[],
  unlock: Unlock,
  isOurs: (key: SigningKey) => boolean,
): Promise<SigningKey> {
  return await openKey(keys, 'admin', unlock, (secret) => {
    const key = signingKey(fromBase64(secret));
    return isOurs(key) ? key : undefined;
  });
}

/** As `age --armor` prints it. */
export function armored(content: Uint8Array): string {
  const lines =
    Buffer.from(content)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return ['-----BEGIN AGE ENCRYPTED FILE-----', ...lines, '-----END AGE ENCRYPTED FILE-----', ''].join('\n');
}

/** Also what was copied from the key kit, as it is printed there. */
function unarmored(content: Uint8Array): Uint8Array {
  const text = Buffer.from(content).toString('latin1');
  const body = /^\s*-----BEGIN AGE ENCRYPTED FILE-----\s([A-Za-z0-9+/=\s]+)-----END AGE/.exec(text)?.[1];
  return body === undefined ? content : Buffer.from(body, 'base64');
}
