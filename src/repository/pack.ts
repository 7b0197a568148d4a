/**
 * Packs (docs/03-format.md §5): "HFPACK1\n", u32 header length, header, sealed section. Named by the
 * SHA-256 of the whole. A pack is not signed: the signed manifest that names it binds its name, its length
 * and its header's digest, and a reader checks these before it uses any byte of it, because anyone can seal
 * a pack to a public key.
 */
import { createHash } from 'node:crypto';
import type { ObjectStore } from '../storage/store.ts';
import { damaged, decodeCanonical, encodeCanonical, Fields, hex, sha256, whenMissing } from './codec.ts';
import type { JsonObject } from './contract.ts';
import type { Identity } from './recipient.ts';
import { release } from './release.ts';
import { openHeader, sealHeader } from './sealed-header.ts';
import {
  type Footer,
  FRAME_BYTES,
  openFooter,
  openFrame,
  readTrailer,
  type SectionKey,
  SectionWriter,
  sectionKey,
  TAG_BYTES,
  TRAILER_BYTES,
} from './section.ts';

export const PACK_MAGIC = Buffer.from('HFPACK1\n', 'latin1');
/**
 * A pack is closed when its next frame might not fit any more. Smaller packs cost more objects, larger ones
 * more memory: a pack is held whole so that its name is known and one put suffices.
 */
export const PACK_BYTES = 16 << 20;
/** Room that is kept for footer and trailer; also how much of a pack's end is read at once to find them. */
const FOOTER_RESERVE = 64 << 10;
/** Frames a pack: bounds the footer, and how much one worker has to restore alone (1 GiB of zeros, say). */
const FRAMES_MOST = 1024;
const HEADER_LIMIT = 64 << 10;

export const packName = (digest: string): string => `packs/${digest.slice(0, 2)}/${digest}`;

/** Whose data a pack holds, and who can open it. */
export interface SealContext {
  readonly repository: string;
  readonly source: string;
  readonly writer: string;
  readonly epoch: number;
  /** Raw X25519 public keys. */
  readonly recipients: readonly Uint8Array[];
}

/** A pack as the pack list binds it. Digests in hex. */
export interface PackBinding {
  readonly digest: string;
  readonly bytes: number;
  readonly headerDigest: string;
}

/** Builds one pack in a buffer of PACK_BYTES that the caller lends. */
export class PackWriter {
  readonly #buffer: Uint8Array;
  readonly #headerDigest: Uint8Array;
  readonly #section: SectionWriter;
  #bytes = 0;

  constructor(context: SealContext, level: number, buffer: Uint8Array) {
    this.#buffer = buffer;
    const claims: JsonObject = {
      format: 1,
      type: 'pack',
      repository: context.repository,
      source: context.source,
      writer: context.writer,
      epoch: context.epoch,
    };
    const { header, digest, secret } = sealHeader(claims, context.recipients);
    this.#headerDigest = digest;
    this.#append(frameHeader(PACK_MAGIC, encodeCanonical(header)));
    this.#section = new SectionWriter(sectionKey(secret, digest), level, (bytes) => {
      this.#append(bytes);
      release(bytes);
    });
  }

  #append(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#bytes);
    this.#bytes += bytes.length;
  }

  get frames(): number {
    return this.#section.frames;
  }

  /** True while `plain` bytes more fit for sure, in frames of any fill, whatever they compress to. */
  hasRoomFor(plain: number): boolean {
    const frames = Math.ceil(plain / FRAME_BYTES) + 1;
    const bytes = this.#bytes + plain + frames * TAG_BYTES + FOOTER_RESERVE;
    return bytes <= PACK_BYTES && this.frames + frames <= FRAMES_MOST;
  }

  frame(plain: Uint8Array): number {
    return this.#section.frame(plain);
  }

  /** Ends the pack: the first `bytes` of the buffer are the object. */
  finish(): PackBinding {
    this.#section.end();
    const digest = createHash('sha256').update(this.#buffer.subarray(0, this.#bytes)).digest('hex');
    return { digest, bytes: this.#bytes, headerDigest: hex(this.#headerDigest) };
  }
}

/** Magic, length and header as one buffer. */
export function frameHeader(magic: Uint8Array, header: Uint8Array): Buffer {
  const head = Buffer.alloc(magic.length + 4 + header.length);
  head.set(magic, 0);
  head.writeUInt32BE(header.length, magic.length);
  head.set(header, magic.length + 4);
  return head;
}

/** The header's bytes and where they end, from the beginning of an object; throws damage when malformed. */
export function parseHeader(magic: Uint8Array, head: Uint8Array, limit: number, what: string) {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.length < magic.length + 4 || !bytes.subarray(0, magic.length).equals(magic)) {
    throw damaged(what, 'it does not begin as it must');
  }
  const length = bytes.readUInt32BE(magic.length);
  const start = magic.length + 4;
  if (length > limit) throw damaged(what, 'its header is too long');
  return { start, end: start + length, header: bytes.subarray(start, start + length) };
}

/** One pack, opened for reading frames from a store. Reads what is asked for, never more than the pack. */
export class PackReader {
  readonly binding: PackBinding;
  readonly #what: string;
  readonly #key: SectionKey;
  readonly #footer: Footer;
  readonly #sectionStart: number;
  readonly #read: (offset: number, length: number) => Promise<Uint8Array> | Uint8Array;

  private constructor(
    binding: PackBinding,
    key: SectionKey,
    footer: Footer,
    sectionStart: number,
    read: (offset: number, length: number) => Promise<Uint8Array> | Uint8Array,
  ) {
    this.binding = binding;
    this.#what = packName(binding.digest);
    this.#key = key;
    this.#footer = footer;
    this.#sectionStart = sectionStart;
    this.#read = read;
  }

  /** Opens a pack held in memory, e.g. to read all of it. Its length was checked against the binding. */
  static fromBytes(
    bytes: Uint8Array,
    binding: PackBinding,
    source: SealedBy,
    identity: Identity,
  ): PackReader {
    const what = packName(binding.digest);
    if (bytes.length !== binding.bytes)
      throw damaged(what, `it has ${bytes.length} bytes instead of ${binding.bytes}`);
    const { header, sectionStart } = checkHeader(bytes, binding, source, what);
    const key = openHeader(header, identity, what);
    const trailer = bytes.subarray(bytes.length - TRAILER_BYTES);
    const place = readTrailer(trailer, what);
    const footerStart = bytes.length - TRAILER_BYTES - place.sealed;
    if (footerStart < sectionStart) throw damaged(what, 'it is cut short');
    const sealedFooter = bytes.subarray(footerStart, footerStart + place.sealed);
    const footer = openFooter(key, trailer, sealedFooter, footerStart - sectionStart, what);
    return new PackReader(binding, key, footer, sectionStart, (offset, length) =>
      bytes.subarray(offset, offset + length),
    );
  }

  /** Opens a pack with two ranged reads; frames are then read one by one. */
  static async open(
    store: ObjectStore,
    binding: PackBinding,
    source: SealedBy,
    identity: Identity,
    signal: AbortSignal,
  ): Promise<PackReader> {
    const name = packName(binding.digest);
    const tailBytes = Math.min(binding.bytes, FOOTER_RESERVE);
    const [head, tail] = await Promise.all([
      store.get(name, { length: Math.min(binding.bytes, 4096), signal }),
      store.get(name, { offset: binding.bytes - tailBytes, signal }),
    ]).catch(whenMissing(name));
    if (tail.length !== tailBytes) throw damaged(name, 'it is shorter or longer than its manifest says');
    const { header, sectionStart } = checkHeader(head, binding, source, name);
    const key = openHeader(header, identity, name);
    const trailer = tail.subarray(tail.length - TRAILER_BYTES);
    const place = readTrailer(trailer, name);
    const footerStart = binding.bytes - TRAILER_BYTES - place.sealed;
    if (footerStart < sectionStart) throw damaged(name, 'it is cut short');
    const sealedFooter =
      place.sealed + TRAILER_BYTES <= tail.length
        ? tail.subarray(tail.length - TRAILER_BYTES - place.sealed, tail.length - TRAILER_BYTES)
        : await store.get(name, { offset: footerStart, length: place.sealed, signal });
    const footer = openFooter(key, trailer, sealedFooter, footerStart - sectionStart, name);
    return new PackReader(binding, key, footer, sectionStart, (offset, length) =>
      store.get(name, { offset, length, signal }),
    );
  }

  get frameCount(): number {
    return this.#footer.frames.length;
  }

  async frame(number: number): Promise<Buffer> {
    const info = this.#footer.frames[number];
    if (info === undefined) throw damaged(this.#what, `it has no frame ${number}`);
    const sealed = await this.#read(this.#sectionStart + info.offset, info.sealed);
    return openFrame(this.#key, this.#footer, number, sealed, this.#what);
  }

  /** Like `frame`, for a pack in memory. */
  frameSync(number: number): Buffer {
    const info = this.#footer.frames[number];
    if (info === undefined) throw damaged(this.#what, `it has no frame ${number}`);
    const sealed = this.#read(this.#sectionStart + info.offset, info.sealed);
    if (sealed instanceof Promise) throw new Error('this pack is not in memory');
    return openFrame(this.#key, this.#footer, number, sealed, this.#what);
  }
}

/** Who must have sealed a pack for it to be used: packs of another source or repository are refused. */
export interface SealedBy {
  readonly repository: string;
  readonly source: string;
  readonly writer: string;
}

function checkHeader(head: Uint8Array, binding: PackBinding, by: SealedBy, what: string) {
  const parsed = parseHeader(PACK_MAGIC, head, HEADER_LIMIT, what);
  if (hex(sha256(parsed.header)) !== binding.headerDigest) {
    throw damaged(what, 'its header is not the one that its manifest binds');
  }
  const header = decodeCanonical(parsed.header, what);
  const fields = new Fields(header, what);
  if (fields.integer('format') !== 1 || fields.string('type') !== 'pack')
    throw damaged(what, 'it is not a pack');
  const same =
    fields.string('repository') === by.repository &&
    fields.string('source') === by.source &&
    fields.string('writer') === by.writer;
  if (!same) throw damaged(what, 'it belongs to another source, writer or repository');
  return { header, sectionStart: parsed.end };
}
