/** `tmp/` of a local store: where objects are written before they are published, and what killed runs leave there. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import { writeAll } from './local-file.ts';
import { reservedArea } from './name.ts';

const fileMode = 0o640;
const leftoverAgeMs = 24 * 3600_000;
/** Ours in `tmp/`; anything else there is left alone. */
const leftoverShape = /^[0-9a-f]{32}$/;

export interface Written {
  readonly path: string;
  /** Time of the file by the store's clock, whole milliseconds since 1970. */
  readonly storedAt: number;
}

export class WorkingArea {
  readonly path: string;
  readonly #log: Logger | undefined;
  #cleaning: Promise<void> | undefined;
  #warned = false;

  constructor(root: string, log: Logger | undefined) {
    this.path = join(root, reservedArea);
    this.#log = log;
  }

  /** A path that nobody else uses. */
  newPath(): string {
    return join(this.path, randomBytes(16).toString('hex'));
  }

  /** Writes `content` durably to a new path. Leaves nothing when it rejects. */
  async write(content: readonly Uint8Array[], signal: AbortSignal | undefined): Promise<Written> {
    const path = this.newPath();
    const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, fileMode);
    try {
      try {
        await handle.chmod(fileMode);
        await writeAll(handle, content, signal);
        signal?.throwIfAborted();
        // A failed fsync is final for this file: the kernel forgets the dirty pages and a second one would lie.
        await handle.sync();
        return { path, storedAt: Math.floor((await handle.stat()).mtimeMs) };
      } finally {
        await handle.close();
      }
    } catch (error) {
      await this.discard(path);
      throw error;
    }
  }

  /** Removes a file. Never fails: what it belongs to is decided already. */
  async discard(path: string): Promise<void> {
    try {
      await unlink(path);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#warnOnce(error);
    }
  }

  /**
   * Begins, once, to remove what killed runs left, judged by the store's own clock: `freshAt` is the time of a
   * file written just now. A day is far longer than any put; were one still running, its link would fail,
   * harmlessly.
   */
  clean(freshAt: number): void {
    this.#cleaning ??= this.#removeLeftovers(freshAt);
  }

  /** Resolves when what `clean` began is over. */
  async cleaned(): Promise<void> {
    await this.#cleaning;
  }

  async #removeLeftovers(freshAt: number): Promise<void> {
    try {
      for (const name of await readdir(this.path)) {
        if (leftoverShape.test(name)) await this.#removeIfOld(join(this.path, name), freshAt);
      }
    } catch (error) {
      this.#warnOnce(error);
    }
  }

  async #removeIfOld(path: string, freshAt: number): Promise<void> {
    try {
      if (freshAt - (await lstat(path)).mtimeMs > leftoverAgeMs) await this.discard(path);
    } catch (error) {
      // Whoever is writing there removes their own files, and other processes clean too.
      if (systemErrorCode(error) !== 'ENOENT') throw error;
    }
  }

  #warnOnce(error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#log?.warn(
      'Files in tmp/ of the repository cannot be removed and will pile up; objects are not affected. Is the folder append-only?',
      { folder: this.path, system: systemErrorCode(error) },
    );
  }
}
