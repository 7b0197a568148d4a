/** `holdfast.json` and the rosters: canonical JSON `{body, signature}`, signed by the admin key. */
import { base64, damaged, decodeCanonical, encodeCanonical, Fields } from './codec.ts';
import type { JsonObject } from './contract.ts';
import { type SigningKey, verifyingKey, verifySignature } from './signing.ts';

type Domain = 'repository' | 'roster';

export function encodeDocument(domain: Domain, body: JsonObject, admin: SigningKey): Uint8Array {
  return encodeCanonical({ body, signature: base64(admin.sign(domain, encodeCanonical(body))) });
}

/** Parses without checking the signature: `holdfast.json` itself says whose key to check it by. */
export function parseDocument(bytes: Uint8Array, what: string): { body: Fields; signature: Buffer } {
  const value = decodeCanonical(bytes, what);
  if (Object.keys(value).join() !== 'body,signature') throw damaged(what, 'it holds more than was signed');
  const document = new Fields(value, what);
  return { body: document.object('body'), signature: document.bytes('signature', 64) };
}

export function decodeDocument(
  domain: Domain,
  bytes: Uint8Array,
  adminKey: Uint8Array,
  what: string,
): Fields {
  const { body, signature } = parseDocument(bytes, what);
  if (!verifySignature(verifyingKey(adminKey), domain, encodeCanonical(body.raw), signature)) {
    throw damaged(what, "its signature is not by the repository's admin key");
  }
  return body;
}
