/**
 * Sealing a key to X25519 recipients, the way of age's X25519 stanza (age-encryption.org/v1), with
 * node:crypto. The wrapped body is a 32-byte secret where age has 16 bytes; everything else is age's, so
 * recipients and identities are age's own strings (`age1…`, `AGE-SECRET-KEY-1…`).
 */
import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { bech32 } from '@scure/base';
import { HoldfastError } from '../core/errors.ts';

export const SECRET_BYTES = 32;

/** DER prefixes of RFC 8410 keys; Node has no raw import for private X25519 and Ed25519 keys. */
const X25519_PRIVATE = Buffer.from('302e020100300506032b656e04220420', 'hex');
const X25519_PUBLIC = Buffer.from('302a300506032b656e032100', 'hex');
const INFO = 'age-encryption.org/v1/X25519';
const ZERO_NONCE = Buffer.alloc(12);

/** One recipient's copy of a secret: the ephemeral share and the wrapped secret. */
export interface Stanza {
  readonly share: Uint8Array;
  readonly body: Uint8Array;
}

/** A decryption identity, decoded once and kept as a key object. */
export interface Identity {
  readonly recipient: string;
  readonly publicKey: Uint8Array;
  readonly privateKey: KeyObject;
}

const publicKeyOf = (raw: Uint8Array): KeyObject =>
  createPublicKey({ key: Buffer.concat([X25519_PUBLIC, raw]), format: 'der', type: 'spki' });

const rawPublic = (key: KeyObject): Buffer =>
  key.export({ format: 'der', type: 'spki' }).subarray(X25519_PUBLIC.length);

/** The raw public key of an `age1…` recipient. Throws `repository.bad-recipient`. */
export function decodeRecipient(recipient: string): Buffer {
  try {
    const { prefix, bytes } = bech32.decodeToBytes(recipient);
    if (prefix === 'age' && bytes.length === 32) return Buffer.from(bytes);
  } catch (cause) {
    throw badRecipient(recipient, cause);
  }
  throw badRecipient(recipient);
}

function badRecipient(recipient: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    'repository.bad-recipient',
    `"${recipient.slice(0, 80)}" is not an age X25519 recipient.`,
    {
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

/** Decodes an `AGE-SECRET-KEY-1…` string. Throws `repository.wrong-key` without repeating the secret. */
export function decodeIdentity(text: string): Identity {
  let raw: Uint8Array | undefined;
  try {
    const { prefix, bytes } = bech32.decodeToBytes(text.trim().toLowerCase());
    if (prefix === 'age-secret-key-' && bytes.length === 32) raw = bytes;
  } catch {
    raw = undefined;
  }
  if (raw === undefined) {
    throw new HoldfastError(
      'repository.wrong-key',
      'The identity given is not an age secret key (AGE-SECRET-KEY-1…).',
    );
  }
  const privateKey = createPrivateKey({
    key: Buffer.concat([X25519_PRIVATE, raw]),
    format: 'der',
    type: 'pkcs8',
  });
  const publicKey = rawPublic(createPublicKey(privateKey));
  return { privateKey, publicKey, recipient: bech32.encodeFromBytes('age', publicKey) };
}

export function generateIdentity(): string {
  return bech32.encodeFromBytes('age-secret-key-', randomBytes(32)).toUpperCase();
}

function wrapKey(shared: Uint8Array, share: Uint8Array, recipient: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', shared, Buffer.concat([share, recipient]), INFO, 32));
}

/** Seals `secret` to each recipient (raw public keys). */
export function sealSecret(secret: Uint8Array, recipients: readonly Uint8Array[]): Stanza[] {
  return recipients.map((recipient) => {
    const ephemeral = generateKeyPairSync('x25519');
    const share = rawPublic(ephemeral.publicKey);
    const shared = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: publicKeyOf(recipient) });
    const cipher = createCipheriv('chacha20-poly1305', wrapKey(shared, share, recipient), ZERO_NONCE, {
      authTagLength: 16,
    });
    const body = Buffer.concat([cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
    return { share, body };
  });
}

/** Opens the first stanza that is for `identity`; undefined when none is. */
export function openSecret(stanzas: readonly Stanza[], identity: Identity): Buffer | undefined {
  for (const { share, body } of stanzas) {
    if (share.length !== 32 || body.length !== SECRET_BYTES + 16) continue;
    try {
      const shared = diffieHellman({ privateKey: identity.privateKey, publicKey: publicKeyOf(share) });
      const key = wrapKey(shared, share, identity.publicKey);
      const decipher = createDecipheriv('chacha20-poly1305', key, ZERO_NONCE, { authTagLength: 16 });
      decipher.setAuthTag(body.subarray(SECRET_BYTES));
      return Buffer.concat([decipher.update(body.subarray(0, SECRET_BYTES)), decipher.final()]);
    } catch {
      // Not this identity's stanza: the wrapping is authenticated, so that trying is the way to know.
    }
  }
  return undefined;
}
