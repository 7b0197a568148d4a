/**
 * Heads of manifests that this host has read and whose signatures it has checked: objects never
 * change, so that what was right once need not be read again to be listed. Disposable. Verification and
 * restore never ask it; and whether the object is still there, with that length, the listing says.
 */
import { readFile } from 'node:fs/promises';
import { systemErrorCode } from '../core/errors.ts';
import type { JsonObject } from './contract.ts';
import { writeDurably } from './local-state.ts';

interface CachedHead {
  readonly bytes: number;
  readonly header: JsonObject;
}

export class HeadCache {
  readonly #path: string;
  readonly #known: ReadonlyMap<string, CachedHead>;
  readonly #seen = new Map<string, CachedHead>();
  #added = 0;

  private constructor(path: string, known: ReadonlyMap<string, CachedHead>) {
    this.#path = path;
    this.#known = known;
  }

  /** Opens the cache in that file; one that cannot be read is an empty one. */
  static async open(path: string): Promise<HeadCache> {
    let text = '';
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
    return new HeadCache(path, parse(text));
  }

  /** The header of an object of that name and length, if it was checked before. */
  get(name: string, bytes: number): JsonObject | undefined {
    const head = this.#known.get(name);
    if (head === undefined || head.bytes !== bytes) return undefined;
    this.#seen.set(name, head);
    return head.header;
  }

  /** Remembers a head that was read and checked now. */
  add(name: string, bytes: number, header: JsonObject): void {
    this.#seen.set(name, { bytes, header });
    this.#added++;
  }

  /**
   * Writes what was seen since it was opened, and forgets the rest. Where that is not possible (the state folder
   * belongs to another user, or its disk is full) nothing is lost: the next listing reads the heads again.
   */
  async save(): Promise<void> {
    if (this.#added === 0 && this.#seen.size === this.#known.size) return;
    const lines = [...this.#seen].map(
      ([name, { bytes, header }]) => `${JSON.stringify([name, bytes, header])}\n`,
    );
    try {
      await writeDurably(this.#path, [Buffer.from(lines.join(''), 'utf8')]);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }
}

function parse(text: string): Map<string, CachedHead> {
  const known = new Map<string, CachedHead>();
  try {
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const [name, bytes, header] = JSON.parse(line) as [string, number, JsonObject];
      known.set(name, { bytes, header });
    }
  } catch {
    // Cut by a crash: it is only a cache.
    return new Map();
  }
  return known;
}
