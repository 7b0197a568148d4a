/**
 * Block hashes of a run under way: a MiB for each GiB of data lies in a file until the cache is written, not in
 * memory. The file has no name, so that a killed run leaves nothing.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export class HashSpool {
  readonly #directory: string;
  #fd: number | undefined;
  #bytes = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Returns where they are. */
  append(pieces: readonly Uint8Array[]): { readonly at: number; readonly length: number } {
    this.#fd ??= this.#open();
    const at = this.#bytes;
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; )
        done += writeSync(this.#fd, piece, done, piece.length - done, this.#bytes + done);
      this.#bytes += piece.length;
    }
    return { at, length: this.#bytes - at };
  }

  read({ at, length }: { readonly at: number; readonly length: number }): Uint8Array {
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const more = this.#fd === undefined ? 0 : readSync(this.#fd, bytes, done, length - done, at + done);
      if (more === 0) throw new Error('the spool of block hashes is cut');
      done += more;
    }
    return bytes;
  }

  #open(): number {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, `hashes-${randomBytes(8).toString('hex')}`);
    const fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return fd;
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
