/**
 * What every sealed object's header carries: copies of its secret for the recipients, and an HMAC that ties
 * the whole header to that secret. Public; needs no key to read, needs the secret to check.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { base64, damaged, encodeCanonical, Fields, fromBase64, sha256 } from './codec.ts';
import type { JsonObject } from './contract.ts';
import { type Identity, openSecret, SECRET_BYTES, type Stanza, sealSecret } from './recipient.ts';
import { headerMac, type SectionKey, sectionKey } from './section.ts';

export interface SealedHeader {
  /** The claims with `recipients` and `mac`. */
  readonly header: JsonObject;
  /** SHA-256 of the canonical header: what every frame is bound to. */
  readonly digest: Uint8Array;
  readonly secret: Uint8Array;
}

/** Makes a fresh secret and a header that seals it to `recipients` (raw public keys). */
export function sealHeader(claims: JsonObject, recipients: readonly Uint8Array[]): SealedHeader {
  const secret = randomBytes(SECRET_BYTES);
  const stanzas = sealSecret(secret, recipients).map(({ share, body }) => ({
    share: base64(share),
    body: base64(body),
  }));
  const withRecipients: JsonObject = { ...claims, recipients: stanzas };
  const header: JsonObject = {
    ...withRecipients,
    mac: base64(headerMac(secret, encodeCanonical(withRecipients))),
  };
  return { header, digest: sha256(encodeCanonical(header)), secret };
}

/**
 * Opens a header with the decryption identity. Throws `repository.damaged` when no stanza opens or the HMAC
 * does not fit: the caller has proved the identity to be the repository's before.
 */
export function openHeader(header: JsonObject, identity: Identity, what: string): SectionKey {
  const fields = new Fields(header, what);
  const stanzas: Stanza[] = fields.objects('recipients').map((stanza) => ({
    share: fromBase64(stanza.string('share')),
    body: fromBase64(stanza.string('body')),
  }));
  const secret = openSecret(stanzas, identity);
  if (secret === undefined) throw damaged(what, 'it is not sealed to the identity of this repository');
  const { mac: _, ...claims } = header;
  if (!timingSafeEqual(headerMac(secret, encodeCanonical(claims)), fields.bytes('mac', 32))) {
    throw damaged(what, 'its header does not belong to its key');
  }
  return sectionKey(secret, sha256(encodeCanonical(header)));
}
