/** Ed25519 signatures with a domain each, so that one object's signature never fits another kind of object. */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign, verify } from 'node:crypto';
import { base32, sha256 } from './codec.ts';

const ED25519_PRIVATE = Buffer.from('302e020100300506032b657004220420', 'hex');
const ED25519_PUBLIC = Buffer.from('302a300506032b6570032100', 'hex');

export const SIGNATURE_BYTES = 64;

export type SignatureDomain = 'repository' | 'roster' | 'snapshot' | 'log-part';

/** A private signing key: a host's own, or the repository's admin key. */
export interface SigningKey {
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  /** 16 base32 characters of the public key's digest: what writers are called by. */
  readonly id: string;
  sign(domain: SignatureDomain, bytes: Uint8Array): Uint8Array;
}

const message = (domain: SignatureDomain, bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from(`holdfast/1/${domain}\0`, 'utf8'), bytes]);

export function signerId(publicKey: Uint8Array): string {
  return base32(sha256(publicKey)).slice(0, 16);
}

export function generateSeed(): Buffer {
  return randomBytes(32);
}

export function signingKey(seed: Uint8Array): SigningKey {
  const key = createPrivateKey({ key: Buffer.concat([ED25519_PRIVATE, seed]), format: 'der', type: 'pkcs8' });
  const publicKey = createPublicKey(key)
    .export({ format: 'der', type: 'spki' })
    .subarray(ED25519_PUBLIC.length);
  return {
    seed,
    publicKey,
    id: signerId(publicKey),
    sign: (domain, bytes) => sign(null, message(domain, bytes), key),
  };
}

/** A public key, decoded once for many verifications. */
export function verifyingKey(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([ED25519_PUBLIC, publicKey]), format: 'der', type: 'spki' });
}

export function verifySignature(
  key: KeyObject,
  domain: SignatureDomain,
  bytes: Uint8Array,
  signature: Uint8Array,
): boolean {
  return signature.length === SIGNATURE_BYTES && verify(null, message(domain, bytes), key, signature);
}
