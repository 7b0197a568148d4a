/**
 * The small encodings of format 1 (docs/03-format.md §2): canonical JSON, big-endian lengths, digests.
 * Canonical JSON is UTF-8 without white space, keys in ascending code unit order, numbers safe integers.
 */
import { createHash } from 'node:crypto';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Json, JsonObject } from './contract.ts';

function writeCanonical(value: Json): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      throw new TypeError(`canonical JSON holds safe integers only, not ${value}`);
    }
    return String(value);
  }
  if (Array.isArray(value)) return `[${value.map(writeCanonical).join(',')}]`;
  const object = value as JsonObject;
  const members = Object.keys(object)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${writeCanonical(object[key] as Json)}`);
  return `{${members.join(',')}}`;
}

export function encodeCanonical(value: JsonObject): Uint8Array {
  return Buffer.from(writeCanonical(value), 'utf8');
}

/** Parses canonical JSON; anything that is not byte for byte canonical is refused as damage of `what`. */
export function decodeCanonical(bytes: Uint8Array, what: string): JsonObject {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new TypeError('not an object');
    // A second spelling of the same value could carry a second meaning past a signature: only one is accepted.
    if (!Buffer.from(writeCanonical(value), 'utf8').equals(bytes)) throw new TypeError('not canonical');
  } catch (cause) {
    throw damaged(what, 'its JSON is not canonical', cause);
  }
  return value as JsonObject;
}

export function damaged(what: string, why: string, cause?: unknown): HoldfastError {
  const next = remedyFor(what);
  return new HoldfastError('repository.damaged', `${what} is damaged or forged: ${why}.`, {
    details: { object: what },
    ...(next === undefined ? {} : { next }),
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Without these a repository does not open at all, so that verifying would fail on them again. */
function remedyFor(what: string): string | undefined {
  if (what !== 'holdfast.json' && !what.startsWith('roster/')) return undefined;
  return `Put ${what} back from a copy of the repository (it never changes once written), then run \`holdfast verify\`. Nothing can be opened until then; backups that are stored are not affected.`;
}

/** For the reading of an object that a signed one names, or a listing showed: where it is missing, that is damage. */
export function whenMissing(name: string): (error: unknown) => never {
  return (error) => {
    if (isHoldfastError(error, 'storage.not-found')) throw damaged(name, 'it is missing', error);
    throw error;
  };
}

export function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

export const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');

export const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');

export const fromBase64 = (text: string): Buffer => Buffer.from(text, 'base64');

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567';

/** RFC 4648 base32 in lower case without padding. */
export function base32(bytes: Uint8Array): string {
  let text = '';
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      text += BASE32[(value >>> (bits - 5)) & 31];
      bits -= 5;
    }
    value &= 0xff;
  }
  if (bits > 0) text += BASE32[(value << (5 - bits)) & 31];
  return text;
}

/** A read-only view over the fields of a decoded object; a missing or mistyped field is damage of `what`. */
export class Fields {
  readonly #object: JsonObject;
  readonly #what: string;

  constructor(object: JsonObject, what: string) {
    this.#object = object;
    this.#what = what;
  }

  #bad(name: string): HoldfastError {
    return damaged(this.#what, `its field "${name}" is missing or malformed`);
  }

  get raw(): JsonObject {
    return this.#object;
  }

  string(name: string, pattern?: RegExp): string {
    const value = this.#object[name];
    if (typeof value !== 'string' || (pattern && !pattern.test(value))) throw this.#bad(name);
    return value;
  }

  stringOrNull(name: string, pattern?: RegExp): string | null {
    return this.#object[name] === null ? null : this.string(name, pattern);
  }

  integer(name: string, least = 0): number {
    const value = this.#object[name];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least) throw this.#bad(name);
    return value;
  }

  /** Fixed-length bytes in base64. */
  bytes(name: string, length: number): Buffer {
    const text = this.string(name);
    const value = fromBase64(text);
    // Node reads several spellings of the same bytes; only one is accepted.
    if (value.length !== length || base64(value) !== text) throw this.#bad(name);
    return value;
  }

  array(name: string): readonly Json[] {
    const value = this.#object[name];
    if (!Array.isArray(value)) throw this.#bad(name);
    return value;
  }

  strings(name: string): readonly string[] {
    const value = this.array(name);
    if (!value.every((item) => typeof item === 'string')) throw this.#bad(name);
    return value as readonly string[];
  }

  object(name: string): Fields {
    const value = this.#object[name];
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.#bad(name);
    return new Fields(value as JsonObject, this.#what);
  }

  objects(name: string): readonly Fields[] {
    return this.array(name).map((value) => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.#bad(name);
      return new Fields(value as JsonObject, this.#what);
    });
  }

  objectOrNull(name: string): Fields | null {
    return this.#object[name] === null ? null : this.object(name);
  }
}

export const HEX64 = /^[0-9a-f]{64}$/;
export const SOURCE_NAME = /^[a-z0-9-]{1,40}$/;
/** Snapshot and stream ids: `20261121T101530Z-<8 base32>`. */
export const RUN_ID = /^\d{8}T\d{6}Z-[a-z2-7]{8}$/;
