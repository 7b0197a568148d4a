/**
 * Manifests and log parts (docs/03-format.md §7): magic, u32 header length, header, signature(64), sealed
 * section. The header names the section's length and digest, so that its signature covers everything, and
 * whoever holds no key can check it from the first few KiB. Frames are bound to the header without that
 * field (`core`), since they must exist before it.
 */
import type { KeyObject } from 'node:crypto';
import { damaged, decodeCanonical, encodeCanonical, Fields, hex, sha256 } from './codec.ts';
import type { JsonObject } from './contract.ts';
import { frameHeader, parseHeader } from './pack.ts';
import { SIGNATURE_BYTES, type SignatureDomain, type SigningKey, verifySignature } from './signing.ts';

export const HEADER_LIMIT = 48 << 10;
/** What a listing reads of an object first; longer headers cost a second read. */
export const HEAD_BYTES = 4096;

const MAGIC: Record<'snapshot' | 'log-part', Buffer> = {
  snapshot: Buffer.from('HFSNAP1\n', 'latin1'),
  'log-part': Buffer.from('HFLOGP1\n', 'latin1'),
};

export type SignedKind = keyof typeof MAGIC;

export interface SignedHead {
  /** The whole header. */
  readonly header: JsonObject;
  /** The header that the frames are bound to. */
  readonly core: JsonObject;
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  readonly sectionStart: number;
  readonly section: { readonly bytes: number; readonly sha256: string };
}

/** Puts the object together; returns it and its digest (hex), which its name carries. */
export function encodeSigned(
  kind: SignedKind,
  core: JsonObject,
  section: readonly Uint8Array[],
  key: SigningKey,
): { content: Uint8Array[]; digest: string; bytes: number } {
  const sectionBytes = section.reduce((sum, part) => sum + part.length, 0);
  const header = encodeCanonical({
    ...core,
    sealed: { bytes: sectionBytes, sha256: hex(sha256(...section)) },
  });
  if (header.length > HEADER_LIMIT)
    throw new RangeError(`the header of a ${kind} has ${header.length} bytes`);
  const content = [frameHeader(MAGIC[kind], header), key.sign(domainOf(kind), header), ...section];
  const bytes = content.reduce((sum, part) => sum + part.length, 0);
  return { content, digest: hex(sha256(...content)), bytes };
}

const domainOf = (kind: SignedKind): SignatureDomain => kind;

/** How many bytes of the object its head takes; from its first 12 bytes. */
export function headLength(kind: SignedKind, first: Uint8Array, what: string): number {
  return parseHeader(MAGIC[kind], first, HEADER_LIMIT, what).end + SIGNATURE_BYTES;
}

/** Decodes the head; `head` holds at least `headLength` bytes. The signature is not checked here. */
export function decodeHead(kind: SignedKind, head: Uint8Array, what: string): SignedHead {
  const parsed = parseHeader(MAGIC[kind], head, HEADER_LIMIT, what);
  const sectionStart = parsed.end + SIGNATURE_BYTES;
  if (head.length < sectionStart) throw damaged(what, 'it is cut short');
  const header = decodeCanonical(parsed.header, what);
  const fields = new Fields(header, what);
  if (fields.string('type') !== kind) throw damaged(what, `it is not a ${kind}`);
  const sealed = fields.object('sealed');
  const { sealed: _, ...core } = header;
  return {
    header,
    core,
    signed: parsed.header,
    signature: head.subarray(parsed.end, sectionStart),
    sectionStart,
    section: { bytes: sealed.integer('bytes'), sha256: sealed.string('sha256', /^[0-9a-f]{64}$/) },
  };
}

/** Checks the signature by the writer's key. */
export function checkSignature(kind: SignedKind, head: SignedHead, key: KeyObject, what: string): void {
  if (!verifySignature(key, domainOf(kind), head.signed, head.signature)) {
    throw damaged(what, 'its signature is not by the writer that it names');
  }
}

/** Checks a section that was read whole. */
export function checkSection(head: SignedHead, section: Uint8Array, what: string): void {
  if (section.length !== head.section.bytes) throw damaged(what, 'its length is not the one that was signed');
  if (hex(sha256(section)) !== head.section.sha256)
    throw damaged(what, 'its bytes are not those that were signed');
}
