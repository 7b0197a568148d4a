/**
 * The cache of change detection (docs/03-format.md §11): for each file of the last snapshot that was read block
 * by block, where its bytes are and a hash of each block under a secret seed. Disposable: without it everything
 * is stored once more. Authenticated with the host's signing seed and bound to store, repository and source,
 * because whoever could forge it could make a snapshot point at the wrong blocks.
 *
 *   blocks.json    {digest and length of the record file, seed, snapshot, …, mac}
 *   blocks-<random>  records in ascending byte order of path:
 *                    u32 length, JSON {path, size, x: [length, pack, frame, offset, …]}, u32 length, hashes
 */
import { createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, readFile, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode } from '../core/errors.ts';
import { HEX64, hex } from './codec.ts';
import type { Extent } from './contract.ts';
import { writeDurably } from './local-state.ts';
import type { PackBinding } from './pack.ts';
import type { SigningKey } from './signing.ts';

/** Unit of change detection: a PostgreSQL page. */
export const BLOCK_BYTES = 8192;
/** XXH3 of 64 bits under a secret seed: two different blocks agree once in 2^64 comparisons. */
export const HASH_BYTES = 8;
const HEAD_FILE = 'blocks.json';
/** Reads and writes of the record file. */
const CHUNK_BYTES = 1 << 20;
/** A record of a 1 GiB file of scattered blocks is 4 MiB; anything far beyond is not ours. */
const RECORD_LIMIT = 64 << 20;

/** A pack list that the snapshot of the cache used. */
export interface CachedList {
  readonly digest: string;
  readonly packs: readonly PackBinding[];
}

export interface CacheHead {
  readonly snapshot: string;
  /** Base64; seeds the block hashes. */
  readonly seed: string;
  readonly epoch: number;
  /** Store time at which the snapshot's manifest was acknowledged, ms since 1970. */
  readonly acknowledged: number;
  /** Name of the probe that was put after it. */
  readonly probe: string;
  readonly lists: readonly CachedList[];
  /** The source's own facts about the snapshot, to judge whether faster ways of comparing are allowed. */
  readonly facts: string;
}

/** What the cache is bound to. */
export interface CacheBinding {
  readonly directory: string;
  readonly address: string;
  readonly repository: string;
  readonly source: string;
  readonly key: SigningKey;
}

export interface CachedFile {
  readonly path: string;
  readonly size: number;
  readonly extents: readonly Extent[];
  /** HASH_BYTES a block. */
  readonly hashes: Uint8Array;
}

interface HeadFile extends CacheHead {
  readonly version: 1;
  readonly records: string;
  readonly bytes: number;
  readonly sha256: string;
}

function macOf(binding: CacheBinding, text: string): Buffer {
  const key = Buffer.from(hkdfSync('sha256', binding.key.seed, '', 'holdfast/1/cache', 32));
  const bound = JSON.stringify([binding.address, binding.repository, binding.source]);
  return createHmac('sha256', key).update(bound).update('\0').update(text).digest();
}

/** Writes the cache of one snapshot: records as they come, the head when the snapshot is published. */
export class BlockCacheWriter {
  readonly #binding: CacheBinding;
  readonly #handle: FileHandle;
  readonly #records: string;
  readonly #hash = createHash('sha256');
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #bytes = 0;

  private constructor(binding: CacheBinding, handle: FileHandle, records: string) {
    this.#binding = binding;
    this.#handle = handle;
    this.#records = records;
  }

  static async create(binding: CacheBinding): Promise<BlockCacheWriter> {
    await mkdir(binding.directory, { recursive: true, mode: 0o700 });
    const records = `blocks-${randomBytes(8).toString('hex')}`;
    return new BlockCacheWriter(binding, await open(join(binding.directory, records), 'wx', 0o600), records);
  }

  async add(file: CachedFile): Promise<void> {
    const x = file.extents.flatMap(({ length, pack, frame, offset }) => [length, pack, frame, offset]);
    const json = Buffer.from(JSON.stringify({ path: file.path, size: file.size, x }), 'utf8');
    for (const part of [lengthOf(json), json, lengthOf(file.hashes), file.hashes]) {
      this.#pending.push(part);
      this.#pendingBytes += part.length;
    }
    if (this.#pendingBytes >= CHUNK_BYTES) await this.#write();
  }

  async #write(): Promise<void> {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
    await this.#handle.writeFile(bytes);
  }

  /** Makes this the cache of the source and removes the one before. Durable when it resolves. */
  async commit(head: CacheHead): Promise<void> {
    await this.#write();
    await this.#handle.sync();
    await this.#handle.close();
    const sha256 = this.#hash.digest('hex');
    const file: HeadFile = { version: 1, records: this.#records, bytes: this.#bytes, sha256, ...head };
    const text = JSON.stringify(file);
    const sealed = JSON.stringify({ text, mac: hex(macOf(this.#binding, text)) });
    await writeDurably(join(this.#binding.directory, HEAD_FILE), [Buffer.from(sealed, 'utf8')]);
    await removeRecords(this.#binding.directory, this.#records);
  }

  async discard(): Promise<void> {
    await this.#handle.close();
    await unlink(join(this.#binding.directory, this.#records));
  }
}

async function removeRecords(directory: string, except: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (/^blocks-[0-9a-f]{16}$/.test(name) && name !== except) await unlink(join(directory, name));
  }
}

/** Forgets everything: the next snapshot stores everything. */
export async function removeBlockCache(directory: string): Promise<void> {
  await unlink(join(directory, HEAD_FILE)).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  });
}

function lengthOf(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return length;
}

/** The cache of the last snapshot, read in order of path. */
export class BlockCacheReader {
  readonly head: CacheHead;
  readonly packs: ReadonlyMap<string, PackBinding>;
  readonly #handle: FileHandle;
  readonly #bytes: number;
  #at = 0;
  #next: CachedFile | null | undefined;

  private constructor(head: HeadFile, handle: FileHandle) {
    this.head = head;
    this.#handle = handle;
    this.#bytes = head.bytes;
    this.packs = new Map(head.lists.flatMap(({ packs }) => packs.map((pack) => [pack.digest, pack])));
  }

  /** Opens and checks it whole; undefined when there is none, or it is not exactly what this host wrote. */
  static async open(binding: CacheBinding): Promise<BlockCacheReader | undefined> {
    const head = await readHead(binding);
    if (head === undefined) return undefined;
    let handle: FileHandle;
    try {
      handle = await open(join(binding.directory, head.records), 'r');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    const hash = createHash('sha256');
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let bytes = 0;
    for (;;) {
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, bytes);
      if (bytesRead === 0) break;
      hash.update(chunk.subarray(0, bytesRead));
      bytes += bytesRead;
    }
    if (bytes === head.bytes && hash.digest('hex') === head.sha256) return new BlockCacheReader(head, handle);
    await handle.close();
    return undefined;
  }

  async #read(length: number): Promise<Buffer> {
    if (length > RECORD_LIMIT || this.#at + length > this.#bytes)
      throw new Error('the block cache is malformed');
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, this.#at + done);
      if (bytesRead === 0) throw new Error('the block cache was cut while it was read');
      done += bytesRead;
    }
    this.#at += length;
    return bytes;
  }

  async #record(): Promise<CachedFile | null> {
    if (this.#at === this.#bytes) return null;
    const json = await this.#read((await this.#read(4)).readUInt32BE(0));
    const { path, size, x } = JSON.parse(json.toString('utf8')) as {
      path: string;
      size: number;
      x: unknown[];
    };
    const extents: Extent[] = [];
    for (let i = 0; i < x.length; i += 4) {
      const [length, pack, frame, offset] = x.slice(i, i + 4) as [number, string | null, number, number];
      extents.push({ length, pack, frame, offset });
    }
    const hashes = await this.#read((await this.#read(4)).readUInt32BE(0));
    return { path, size, extents, hashes };
  }

  /** The file of that path, if the snapshot had it. Ask in ascending byte order of path: it reads forward only. */
  async file(path: string): Promise<CachedFile | undefined> {
    if (this.#next === undefined) this.#next = await this.#record();
    while (this.#next !== null && compareBytes(this.#next.path, path) < 0) this.#next = await this.#record();
    if (this.#next === null || this.#next.path !== path) return undefined;
    const found = this.#next;
    this.#next = undefined;
    return found;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Order of paths in the cache and in walks: by their UTF-8 bytes. */
export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8'));
}

async function readHead(binding: CacheBinding): Promise<HeadFile | undefined> {
  let sealed: string;
  try {
    sealed = await readFile(join(binding.directory, HEAD_FILE), 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { text, mac } = JSON.parse(sealed) as { text: string; mac: string };
    if (!HEX64.test(mac) || !timingSafeEqual(Buffer.from(mac, 'hex'), macOf(binding, text))) return undefined;
    const head = JSON.parse(text) as HeadFile;
    return head.version === 1 ? head : undefined;
  } catch {
    // Not ours, or cut: it is only a cache, and doing without it is safe.
    return undefined;
  }
}
