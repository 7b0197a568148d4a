/**
 * Pack lists (docs/03-format.md §6): one run's packs, plain, so that whoever holds no key can scrub, copy
 * and collect garbage. "HFLIST1\n", u32 count, then per pack: digest(32), header digest(32), u32 bytes.
 */
import type { ObjectStore } from '../storage/store.ts';
import { base64, damaged, fromBase64, hex, sha256, whenMissing } from './codec.ts';
import type { PackBinding } from './pack.ts';

const MAGIC = Buffer.from('HFLIST1\n', 'latin1');
const RECORD_BYTES = 68;

export const packListName = (digest: string): string => `lists/${digest}`;

export function encodePackList(packs: readonly PackBinding[]): { digest: string; content: Uint8Array } {
  const content = Buffer.alloc(MAGIC.length + 4 + packs.length * RECORD_BYTES);
  MAGIC.copy(content);
  let at = content.writeUInt32BE(packs.length, MAGIC.length);
  for (const pack of packs) {
    content.write(pack.digest, at, 'hex');
    content.write(pack.headerDigest, at + 32, 'hex');
    at = content.writeUInt32BE(pack.bytes, at + 64);
  }
  return { digest: hex(sha256(content)), content };
}

export function decodePackList(bytes: Uint8Array, digest: string): PackBinding[] {
  const what = packListName(digest);
  if (hex(sha256(bytes)) !== digest) throw damaged(what, 'its bytes do not match its name');
  const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = MAGIC.length + 4;
  if (content.length < head || !content.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw damaged(what, 'it does not begin as it must');
  }
  const count = content.readUInt32BE(MAGIC.length);
  if (content.length !== head + count * RECORD_BYTES) throw damaged(what, 'its length is wrong');
  return Array.from({ length: count }, (_, i) => {
    const at = head + i * RECORD_BYTES;
    return {
      digest: content.toString('hex', at, at + 32),
      headerDigest: content.toString('hex', at + 32, at + 64),
      bytes: content.readUInt32BE(at + 64),
    };
  });
}

/** The packs of one list that a manifest uses. */
export interface PackListUse {
  readonly digest: string;
  /** One bit a pack, least significant first, base64; null for all. */
  readonly bitmap: string | null;
}

export function encodeBitmap(used: ReadonlySet<number>, count: number): string | null {
  if (used.size === count) return null;
  const bits = Buffer.alloc(Math.ceil(count / 8));
  for (const i of used) bits[i >> 3] = (bits[i >> 3] ?? 0) | (1 << (i & 7));
  return base64(bits);
}

/** Loads a manifest's packs, by digest. */
export async function loadPacks(
  store: ObjectStore,
  uses: readonly PackListUse[],
  signal: AbortSignal,
): Promise<Map<string, PackBinding>> {
  const packs = new Map<string, PackBinding>();
  for (const use of uses) {
    const name = packListName(use.digest);
    const list = decodePackList(await store.get(name, { signal }).catch(whenMissing(name)), use.digest);
    const bits = use.bitmap === null ? null : fromBase64(use.bitmap);
    if (bits !== null && bits.length !== Math.ceil(list.length / 8)) {
      throw damaged(name, 'a manifest uses it with a bitmap of another length');
    }
    list.forEach((pack, i) => {
      if (bits === null || ((bits[i >> 3] ?? 0) >> (i & 7)) & 1) packs.set(pack.digest, pack);
    });
  }
  return packs;
}
