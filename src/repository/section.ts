/**
 * A sealed section (docs/03-format.md §4): numbered frames, a footer and a trailer under one secret. Packs,
 * manifest bodies and log parts are all one.
 *
 *   frame…   AES-256-GCM(zstd or raw plaintext) ‖ tag(16)
 *   footer   the same, over: u32 count, per frame (u32 sealed, u32 plain, u8 flags), then extensions
 *   trailer  u32 sealed footer length, u32 plain footer length, u8 flags, 3 zero bytes, "HFE1"
 *
 * The key is HKDF(secret, salt = header digest): a frame opens only under the header that it was made for,
 * and that header names repository, source and writer. Each frame's number, flags and length are
 * authenticated; the footer, which counts the frames, carries the last flag.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from 'node:crypto';
import { constants, zstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { damaged } from './codec.ts';
import { release } from './release.ts';

export const TAG_BYTES = 16;
export const TRAILER_BYTES = 16;
/** Plaintext of one frame, at most. Measured: larger frames gain < 1 % in size and cost memory. */
export const FRAME_BYTES = 1 << 20;
/** A footer larger than this is refused before it is read. */
const FOOTER_LIMIT = 16 << 20;
const TRAILER_MAGIC = Buffer.from('HFE1', 'latin1');
const FLAG_LAST = 1;
const FLAG_ZSTD = 2;
const FOOTER_NUMBER = 0xffff_ffff;
const AAD_DOMAIN = Buffer.from('holdfast/1/frame\0', 'latin1');

/** Extension types of the footer. Unknown ones are skipped by readers. */
export const Extension = {
  /** Canonical JSON, source-specific. */
  meta: 1,
  /** Commit index of a log part. */
  commits: 2,
  /** Reserved: block digests for delta restores. */
  blocks: 3,
} as const;

export interface FrameInfo {
  /** From the start of the section. */
  readonly offset: number;
  readonly sealed: number;
  readonly plain: number;
  readonly flags: number;
}

export interface Footer {
  readonly frames: readonly FrameInfo[];
  readonly extensions: ReadonlyMap<number, Uint8Array>;
}

export interface SectionKey {
  readonly key: Uint8Array;
  readonly headerDigest: Uint8Array;
}

export function sectionKey(secret: Uint8Array, headerDigest: Uint8Array): SectionKey {
  return {
    key: Buffer.from(hkdfSync('sha256', secret, headerDigest, 'holdfast/1/frames', 32)),
    headerDigest,
  };
}

/** HMAC that commits a header (its recipient stanzas above all) to the secret, which GCM alone does not. */
export function headerMac(secret: Uint8Array, header: Uint8Array): Buffer {
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'holdfast/1/header', 32));
  return createHmac('sha256', key).update(header).digest();
}

function nonce(number: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32BE(number, 8);
  return bytes;
}

function additionalData(headerDigest: Uint8Array, number: number, flags: number, plain: number): Buffer {
  const bytes = Buffer.alloc(AAD_DOMAIN.length + 32 + 9);
  AAD_DOMAIN.copy(bytes);
  bytes.set(headerDigest, AAD_DOMAIN.length);
  let at = AAD_DOMAIN.length + 32;
  at = bytes.writeUInt32BE(number, at);
  at = bytes.writeUInt8(flags, at);
  bytes.writeUInt32BE(plain, at);
  return bytes;
}

/** A frame is stored as it is where compression does not make it smaller. */
function smaller(plain: Uint8Array, compressed: Uint8Array): { packed: Uint8Array; flags: number } {
  if (compressed.length < plain.length) return { packed: compressed, flags: FLAG_ZSTD };
  release(compressed);
  return { packed: plain, flags: 0 };
}

/** Compresses a frame on one of Node's own threads: for a process that lives too short to start workers. */
export function compressFrame(plain: Uint8Array, level: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const params = { [constants.ZSTD_c_compressionLevel]: level };
    const chunkSize = plain.length + (plain.length >> 8) + 256;
    zstdCompress(plain, { params, chunkSize }, (error, packed) => {
      if (error === null) resolve(packed);
      else reject(error);
    });
  });
}

/** Builds one section into a growing list of buffers. A frame is never made twice under the same key. */
export class SectionWriter {
  readonly #key: SectionKey;
  readonly #level: number;
  readonly #frames: FrameInfo[] = [];
  readonly #emit: (bytes: Uint8Array) => void;
  #bytes = 0;
  #ended = false;

  /** `emit` receives the section's bytes in order; they are its own from then on. */
  constructor(key: SectionKey, level: number, emit: (bytes: Uint8Array) => void) {
    this.#key = key;
    this.#level = level;
    this.#emit = emit;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get frames(): number {
    return this.#frames.length;
  }

  #compress(plain: Uint8Array): { packed: Uint8Array; flags: number } {
    const packed = zstdCompressSync(plain, {
      params: { [constants.ZSTD_c_compressionLevel]: this.#level },
      // Room for the worst case: the answer comes in one piece, without a copy.
      chunkSize: plain.length + (plain.length >> 8) + 256,
    });
    return smaller(plain, packed);
  }

  #seal(number: number, flags: number, plainLength: number, packed: Uint8Array): number {
    const cipher = createCipheriv('aes-256-gcm', this.#key.key, nonce(number));
    cipher.setAAD(additionalData(this.#key.headerDigest, number, flags, plainLength));
    const body = cipher.update(packed);
    cipher.final();
    const tag = cipher.getAuthTag();
    const sealed = body.length + tag.length;
    this.#bytes += sealed;
    this.#emit(body);
    this.#emit(tag);
    return sealed;
  }

  /**
   * Seals the next frame and returns its number. `plain` is at most FRAME_BYTES and not kept. `compressed` is
   * what `compressFrame` made of it, where that was done beforehand.
   */
  frame(plain: Uint8Array, compressed?: Uint8Array): number {
    if (plain.length > FRAME_BYTES) throw new RangeError(`a frame holds at most ${FRAME_BYTES} bytes`);
    if (this.#ended) throw new Error('the section has ended');
    const number = this.#frames.length;
    const offset = this.#bytes;
    const { packed, flags } = compressed === undefined ? this.#compress(plain) : smaller(plain, compressed);
    const sealed = this.#seal(number, flags, plain.length, packed);
    if (packed !== plain) release(packed);
    this.#frames.push({ offset, sealed, plain: plain.length, flags });
    return number;
  }

  /** Writes footer and trailer. */
  end(extensions: ReadonlyMap<number, Uint8Array> = new Map()): void {
    this.#ended = true;
    const plain = encodeFooter(this.#frames, extensions);
    const { packed, flags } = this.#compress(plain);
    const sealed = this.#seal(FOOTER_NUMBER, flags | FLAG_LAST, plain.length, packed);
    const trailer = Buffer.alloc(TRAILER_BYTES);
    trailer.writeUInt32BE(sealed, 0);
    trailer.writeUInt32BE(plain.length, 4);
    trailer.writeUInt8(flags | FLAG_LAST, 8);
    TRAILER_MAGIC.copy(trailer, 12);
    this.#emit(trailer);
    this.#bytes += trailer.length;
  }
}

function encodeFooter(frames: readonly FrameInfo[], extensions: ReadonlyMap<number, Uint8Array>): Buffer {
  const table = Buffer.alloc(4 + frames.length * 9);
  let at = table.writeUInt32BE(frames.length, 0);
  for (const frame of frames) {
    at = table.writeUInt32BE(frame.sealed, at);
    at = table.writeUInt32BE(frame.plain, at);
    at = table.writeUInt8(frame.flags, at);
  }
  const parts: Uint8Array[] = [table];
  for (const [type, bytes] of [...extensions].sort(([a], [b]) => a - b)) {
    const head = Buffer.alloc(6);
    head.writeUInt16BE(type, 0);
    head.writeUInt32BE(bytes.length, 2);
    parts.push(head, bytes);
  }
  return Buffer.concat(parts);
}

function decodeFooter(plain: Buffer, framesBytes: number, what: string): Footer {
  const bad = (why: string) => damaged(what, `its footer ${why}`);
  if (plain.length < 4) throw bad('is too short');
  const count = plain.readUInt32BE(0);
  let at = 4;
  if (plain.length < at + count * 9) throw bad('is too short');
  const frames: FrameInfo[] = [];
  let offset = 0;
  for (let i = 0; i < count; i++, at += 9) {
    const frame = {
      offset,
      sealed: plain.readUInt32BE(at),
      plain: plain.readUInt32BE(at + 4),
      flags: plain.readUInt8(at + 8),
    };
    if (frame.plain > FRAME_BYTES || frame.sealed < TAG_BYTES) throw bad('has an impossible frame');
    offset += frame.sealed;
    frames.push(frame);
  }
  if (offset !== framesBytes) throw bad('does not cover the frames');
  const extensions = new Map<number, Uint8Array>();
  while (at < plain.length) {
    if (plain.length < at + 6) throw bad('has a cut extension');
    const type = plain.readUInt16BE(at);
    const length = plain.readUInt32BE(at + 2);
    at += 6;
    if (plain.length < at + length || extensions.has(type)) throw bad('has a cut or double extension');
    extensions.set(type, plain.subarray(at, at + length));
    at += length;
  }
  return { frames, extensions };
}

function open(
  key: SectionKey,
  number: number,
  flags: number,
  plain: number,
  sealed: Uint8Array,
  what: string,
): Buffer {
  const which = number === FOOTER_NUMBER ? 'its footer' : `its frame ${number}`;
  if (sealed.length < TAG_BYTES) throw damaged(what, `${which} is cut short`);
  const decipher = createDecipheriv('aes-256-gcm', key.key, nonce(number), { authTagLength: TAG_BYTES });
  decipher.setAAD(additionalData(key.headerDigest, number, flags, plain));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  let packed: Buffer;
  try {
    packed = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
    decipher.final();
  } catch (cause) {
    throw damaged(what, `${which} does not authenticate`, cause);
  }
  if ((flags & FLAG_ZSTD) === 0) {
    if (packed.length !== plain) throw damaged(what, `${which} has a wrong length`);
    return packed;
  }
  try {
    // A chunk as large as the output halves the time of the one-shot call (docs/benchmarks.md); one byte more,
    // since a chunk that fills exactly has a second one made.
    const bytes = zstdDecompressSync(packed, {
      maxOutputLength: Math.max(plain, 1),
      chunkSize: Math.max(plain + 1, 64),
    });
    release(packed);
    if (bytes.length === plain) return bytes;
  } catch (cause) {
    throw damaged(what, `${which} does not decompress`, cause);
  }
  throw damaged(what, `${which} has a wrong length`);
}

/** Where the footer is, from the last TRAILER_BYTES of the section. */
export function readTrailer(
  trailer: Uint8Array,
  what: string,
): { sealed: number; plain: number; flags: number } {
  const bytes = Buffer.from(trailer.buffer, trailer.byteOffset, trailer.byteLength);
  const sound =
    bytes.length === TRAILER_BYTES &&
    bytes.subarray(12).equals(TRAILER_MAGIC) &&
    bytes.readUIntBE(9, 3) === 0;
  if (!sound) throw damaged(what, 'its trailer is missing');
  const place = { sealed: bytes.readUInt32BE(0), plain: bytes.readUInt32BE(4), flags: bytes.readUInt8(8) };
  const sane = place.sealed >= TAG_BYTES && place.sealed <= FOOTER_LIMIT && place.plain <= FOOTER_LIMIT;
  if (!sane || (place.flags & FLAG_LAST) === 0) throw damaged(what, 'its trailer is malformed');
  return place;
}

/** Opens a footer. `framesBytes` is the length of all frames, which the table must cover exactly. */
export function openFooter(
  key: SectionKey,
  trailer: Uint8Array,
  sealedFooter: Uint8Array,
  framesBytes: number,
  what: string,
): Footer {
  const place = readTrailer(trailer, what);
  return decodeFooter(
    open(key, FOOTER_NUMBER, place.flags, place.plain, sealedFooter, what),
    framesBytes,
    what,
  );
}

/** Authenticates, decrypts and decompresses frame `number`. Nothing unauthenticated is ever returned. */
export function openFrame(
  key: SectionKey,
  footer: Footer,
  number: number,
  sealed: Uint8Array,
  what: string,
): Buffer {
  const frame = footer.frames[number];
  if (frame === undefined) throw damaged(what, `it has no frame ${number}`);
  if (sealed.length !== frame.sealed || (frame.flags & FLAG_LAST) !== 0) {
    throw damaged(what, `its frame ${number} is cut short`);
  }
  return open(key, number, frame.flags, frame.plain, sealed, what);
}

/** A whole section in memory, opened. */
export function openSection(key: SectionKey, section: Uint8Array, what: string) {
  if (section.length < TRAILER_BYTES) throw damaged(what, 'it is cut short');
  const trailer = section.subarray(section.length - TRAILER_BYTES);
  const place = readTrailer(trailer, what);
  const framesBytes = section.length - TRAILER_BYTES - place.sealed;
  if (framesBytes < 0) throw damaged(what, 'it is cut short');
  const sealedFooter = section.subarray(framesBytes, framesBytes + place.sealed);
  const footer = openFooter(key, trailer, sealedFooter, framesBytes, what);
  return {
    footer,
    frame: (number: number): Buffer => {
      const info = footer.frames[number];
      const sealed = info ? section.subarray(info.offset, info.offset + info.sealed) : new Uint8Array();
      return openFrame(key, footer, number, sealed, what);
    },
  };
}
