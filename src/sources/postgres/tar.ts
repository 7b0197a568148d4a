/**
 * Reads a tar stream as PostgreSQL's base backup sends it, cut anywhere, without copying contents.
 *
 * ustar with base-256 sizes (files beyond 8 GiB), and the long-name forms of GNU and pax, which other senders
 * of the same protocol use. What is malformed is refused: a file silently skipped would be a file lost.
 * Facts: src/port/tar.c of PostgreSQL; POSIX.1-2017 pax; GNU tar manual.
 */
import { HoldfastError } from '../../core/errors.ts';

export interface TarEntry {
  /** Relative, without `./` and a slash at the end. */
  readonly path: string;
  readonly type: 'file' | 'directory' | 'symlink';
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since 1970. */
  readonly mtime: number;
  readonly size: number;
  /** Of a symlink. */
  readonly target: string;
}

/** Called in order. `data` may return a promise, which holds the stream back until it resolves. */
export interface TarHandlers {
  begin(entry: TarEntry): void;
  data(bytes: Uint8Array): Promise<void> | undefined;
  end(entry: TarEntry): void;
}

const block = 512;
/** A name or pax header longer than this is no name. */
const nameLimit = 64 * 1024;

/** Feed with `push`, then `finish`. After a throw it is not used again. */
export class TarReader {
  readonly #handlers: TarHandlers;
  readonly #header = new Uint8Array(block);
  #have = 0;
  #entry: TarEntry | undefined;
  /** Bytes of the open entry still to come, then bytes of filler. */
  #left = 0;
  #filler = 0;
  /** A long-name header being gathered: its type and bytes. */
  #extra: { readonly type: string; readonly bytes: Uint8Array; have: number } | undefined;
  #overrides: { path?: string; target?: string; size?: number } = {};
  #ended = false;

  constructor(handlers: TarHandlers) {
    this.#handlers = handlers;
  }

  /** The next bytes. Does not keep `chunk` once it returned undefined or its promise resolved. */
  push(chunk: Uint8Array): Promise<void> | undefined {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const piece = chunk.subarray(at, at + Math.min(this.#left, chunk.length - at));
        at += piece.length;
        const wait = this.#content(piece);
        if (wait !== undefined) {
          const rest = chunk.subarray(at);
          return wait.then(() => this.push(rest));
        }
      } else if (this.#filler > 0) {
        const skip = Math.min(this.#filler, chunk.length - at);
        this.#filler -= skip;
        at += skip;
      } else {
        const piece = chunk.subarray(at, at + block - this.#have);
        this.#header.set(piece, this.#have);
        this.#have += piece.length;
        at += piece.length;
        if (this.#have === block) {
          this.#have = 0;
          this.#open();
        }
      }
    }
    return undefined;
  }

  /** The stream is over. Throws `postgres.protocol` when it ended in the middle of something. */
  finish(): void {
    // PostgreSQL up to 14 leaves out the blocks of zeros at the end.
    if (this.#have > 0 || this.#left > 0 || this.#filler > 0) {
      const inside = this.#entry === undefined ? '' : ` in the middle of ${this.#entry.path}`;
      throw malformed(`it ended early${inside}`);
    }
  }

  #content(piece: Uint8Array): Promise<void> | undefined {
    this.#left -= piece.length;
    const extra = this.#extra;
    if (extra !== undefined) {
      extra.bytes.set(piece, extra.have);
      extra.have += piece.length;
      if (this.#left === 0) this.#applyExtra(extra.type, extra.bytes);
      return undefined;
    }
    const wait = this.#handlers.data(piece);
    if (this.#left > 0) return wait;
    if (wait === undefined) {
      this.#close();
      return undefined;
    }
    return wait.then(() => this.#close());
  }

  #close(): void {
    const entry = this.#entry!;
    this.#entry = undefined;
    this.#handlers.end(entry);
  }

  #open(): void {
    const header = this.#header;
    if (header.every((byte) => byte === 0)) {
      this.#ended = true;
      return;
    }
    if (this.#ended) throw malformed('something follows its end');
    checkSum(header);
    const type = String.fromCharCode(header[156]!);
    const size = this.#overrides.size ?? number(header, 124, 12);
    this.#filler = -size & (block - 1);
    this.#left = size;
    if (type === 'L' || type === 'K' || type === 'x' || type === 'g') {
      if (size === 0 || size > nameLimit) throw malformed(`a long name has ${size} bytes`);
      this.#extra = { type, bytes: new Uint8Array(size), have: 0 };
      return;
    }
    this.#begin(type, size);
  }

  #begin(type: string, size: number): void {
    const header = this.#header;
    const kind =
      type === '0' || type === '\0'
        ? 'file'
        : type === '5'
          ? 'directory'
          : type === '2'
            ? 'symlink'
            : undefined;
    const prefix = text(header, 345, 155);
    const name = this.#overrides.path ?? (prefix === '' ? '' : `${prefix}/`) + text(header, 0, 100);
    if (kind === undefined) throw malformed(`"${name}" is of the unknown type "${type}"`);
    if (kind !== 'file' && size !== 0) throw malformed(`"${name}" is no file and has ${size} bytes`);
    const entry: TarEntry = {
      path: clean(name),
      type: kind,
      mode: number(header, 100, 8) & 0o7777,
      uid: number(header, 108, 8),
      gid: number(header, 116, 8),
      mtime: number(header, 136, 12) * 1000,
      size,
      target: this.#overrides.target ?? text(header, 157, 100),
    };
    this.#overrides = {};
    this.#entry = entry;
    this.#handlers.begin(entry);
    if (size === 0) this.#close();
  }

  #applyExtra(type: string, bytes: Uint8Array): void {
    this.#extra = undefined;
    if (type === 'L') this.#overrides.path = text(bytes, 0, bytes.length);
    else if (type === 'K') this.#overrides.target = text(bytes, 0, bytes.length);
    else if (type === 'x') this.#applyPax(bytes);
    // A global header (`g`) holds defaults such as comments; none of what is read here may be global.
  }

  /** Records `<length> <key>=<value>\n`, where length counts the whole record in bytes. */
  #applyPax(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const space = bytes.indexOf(0x20, at);
      const length = space < 0 ? Number.NaN : Number(text(bytes, at, space - at));
      if (!Number.isSafeInteger(length) || length <= space - at || at + length > bytes.length) {
        throw malformed('a pax header is malformed');
      }
      const record = text(bytes, space + 1, length - (space - at) - 2);
      const equals = record.indexOf('=');
      const value = record.slice(equals + 1);
      const key = record.slice(0, equals);
      if (key === 'path') this.#overrides.path = value;
      else if (key === 'linkpath') this.#overrides.target = value;
      else if (key === 'size') {
        const size = Number(value);
        if (!Number.isSafeInteger(size) || size < 0) throw malformed(`a file has the size ${value}`);
        this.#overrides.size = size;
      }
      at += length;
    }
  }
}

function checkSum(header: Uint8Array): void {
  let sum = 0;
  for (let i = 0; i < block; i += 1) sum += i >= 148 && i < 156 ? 0x20 : header[i]!;
  if (sum !== number(header, 148, 8)) throw malformed('the checksum of a header does not match');
}

function text(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length);
  const stop = field.indexOf(0);
  return Buffer.from(stop < 0 ? field : field.subarray(0, stop)).toString('utf8');
}

/** Octal, or base-256 where the first bit is set. */
function number(bytes: Uint8Array, at: number, length: number): number {
  if ((bytes[at]! & 0x80) !== 0) {
    let value = BigInt(bytes[at]! & 0x7f);
    for (let i = 1; i < length; i += 1) value = (value << 8n) | BigInt(bytes[at + i]!);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed('a number in a header is too large');
    return Number(value);
  }
  const digits = text(bytes, at, length).trim();
  if (!/^[0-7]*$/.test(digits)) throw malformed('a number in a header is malformed');
  return digits === '' ? 0 : Number.parseInt(digits, 8);
}

function clean(name: string): string {
  const path = name.replace(/^(\.\/+)+/, '').replace(/\/+$/, '');
  const parts = path.split('/');
  if (path === '' || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw malformed(`it holds the path "${name}"`);
  }
  return path;
}

function malformed(why: string): HoldfastError {
  return new HoldfastError('postgres.protocol', `The archive of the base backup is malformed: ${why}.`);
}
