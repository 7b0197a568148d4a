/**
 * The block-wise side of a snapshot run: the source's reader module compares blocks with the cache in the
 * pipeline's workers, and what has not changed is taken over from the snapshot before.
 *
 * Rules of reuse (docs/03-format.md §10): only packs of this host's last acknowledged manifest on this very
 * store, of the same epoch, and only while that manifest is younger than the reuse period less a day; a
 * probe put after that manifest must still be there.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import {
  BLOCK_BYTES,
  BlockCacheReader,
  BlockCacheWriter,
  type CacheBinding,
  type CacheHead,
} from './block-cache.ts';
import { base32, base64, fromBase64 } from './codec.ts';
import type { BlockPiece, BlockSink, EntryMeta, Extent, KnownFile } from './contract.ts';
import type { ReaderJob } from './frame-worker.ts';
import { HashSpool } from './hash-spool.ts';
import type { PackBinding } from './pack.ts';
import { encodeBitmap, type PackListUse } from './pack-list.ts';
import type { Pipeline } from './pipeline.ts';

const DAY_MS = 86_400_000;
/** How long after its acknowledgement a manifest's packs may be taken over: garbage collection waits as long. */
export const REUSE_PERIOD_MS = 14 * DAY_MS;
/** At least any clock's skew plus the longest request. */
export const REUSE_MARGIN_MS = DAY_MS;
/** Int32 values a run of changed blocks: first block, blocks, pack token, frame, offset in the frame. */
const RUN_VALUES = 5;

/** A file that was read block by block, waiting for its packs to get their names. */
export interface BlockEntry {
  readonly meta: EntryMeta;
  readonly size: number;
  readonly pieces: readonly Pick<BlockPiece, 'offset' | 'length' | 'runs'>[];
  /** Place of its block hashes in the run's spool. */
  readonly hashes: { readonly at: number; readonly length: number };
  /** Where the snapshot before had its bytes. */
  readonly before: readonly Extent[];
}

export interface BlockRunParts {
  readonly store: ObjectStore;
  /** Starts the workers, whose readers hash under that seed. */
  readonly openPipeline: (seed: Uint8Array) => Pipeline;
  readonly binding: CacheBinding;
  readonly epoch: number;
  readonly now: number;
  readonly signal: AbortSignal;
  readonly add: (entry: BlockEntry) => void;
}

export class BlockRun implements BlockSink {
  readonly #parts: BlockRunParts;
  readonly #cache: BlockCacheReader | undefined;
  /** By path, until the file comes. */
  readonly #before = new Map<string, readonly Extent[]>();
  readonly #seed: Uint8Array;
  readonly #pipeline: Pipeline;
  readonly #hashes: HashSpool;
  #facts = '';

  private constructor(parts: BlockRunParts, cache: BlockCacheReader | undefined) {
    this.#parts = parts;
    this.#cache = cache;
    this.#seed = cache === undefined ? randomBytes(8) : fromBase64(cache.head.seed);
    this.#hashes = new HashSpool(parts.binding.directory);
    this.#pipeline = parts.openPipeline(this.#seed);
  }

  /** Opens the cache where the rules of reuse allow it; `accept` is the source's own say, by its facts. */
  static async open(
    parts: BlockRunParts,
    full: boolean,
    accept: (facts: string) => boolean,
  ): Promise<BlockRun> {
    const cache = full ? undefined : await BlockCacheReader.open(parts.binding);
    if (cache === undefined) return new BlockRun(parts, undefined);
    const { head } = cache;
    const young = parts.now < head.acknowledged + REUSE_PERIOD_MS - 2 * REUSE_MARGIN_MS;
    const usable = young && head.epoch === parts.epoch && accept(head.facts);
    if (usable && (await probeIsThere(parts.store, head.probe, parts.signal)))
      return new BlockRun(parts, cache);
    await cache.close();
    return new BlockRun(parts, undefined);
  }

  get previous(): string | null {
    return this.#cache?.head.snapshot ?? null;
  }

  get width(): number {
    return this.#pipeline.width;
  }

  async known(path: string): Promise<KnownFile | undefined> {
    const file = await this.#cache?.file(path);
    if (file !== undefined) this.#before.set(path, file.extents);
    return file;
  }

  async read<Answer>(job: ReaderJob, transfer?: readonly ArrayBuffer[]): Promise<Answer> {
    return (await this.#pipeline.read(job, transfer)) as Answer;
  }

  file(meta: EntryMeta, size: number, pieces: readonly BlockPiece[]): void {
    const before = this.#before.get(meta.path) ?? [];
    this.#before.delete(meta.path);
    const hashes = this.#hashes.append(pieces.map((piece) => piece.hashes));
    const kept = pieces.map(({ offset, length, runs }) => ({ offset, length, runs }));
    this.#parts.add({ meta, size, pieces: kept, hashes, before });
  }

  remember(facts: string): void {
    this.#facts = facts;
  }

  /** The extents of an entry, when all packs have their names. */
  extents(entry: BlockEntry): Iterable<Extent> {
    return merged(this.#found(entry));
  }

  *#found(entry: BlockEntry): Iterable<Extent> {
    const pipeline = this.#pipeline;
    const old = new ExtentCursor(entry.before);
    for (const piece of entry.pieces) {
      let at = piece.offset;
      const end = piece.offset + piece.length;
      for (let i = 0; i < piece.runs.length; i += RUN_VALUES) {
        const [block = 0, blocks = 0, token = 0, frame = 0, offset = 0] = piece.runs.subarray(
          i,
          i + RUN_VALUES,
        );
        const start = piece.offset + block * BLOCK_BYTES;
        if (start > at) yield* old.range(at, start);
        const length = Math.min(blocks * BLOCK_BYTES, end - start);
        yield { length, pack: pipeline.pack(token).digest, frame, offset };
        at = start + length;
      }
      if (at < end) yield* old.range(at, end);
    }
  }

  /** The lists that a manifest names: this run's own, and of earlier ones what is still used. */
  lists(own: PackListUse | undefined, used: ReadonlySet<string>): PackListUse[] {
    const uses: PackListUse[] = own === undefined ? [] : [own];
    for (const { digest, packs } of this.#cache?.head.lists ?? []) {
      const positions = new Set(packs.flatMap((pack, i) => (used.has(pack.digest) ? [i] : [])));
      if (positions.size > 0) uses.push({ digest, bitmap: encodeBitmap(positions, packs.length) });
    }
    return uses;
  }

  /** Refuses to publish what could be collected already. `storedAt` is the store's own time of this run's list. */
  checkAge(storedAt: number): void {
    const acknowledged = this.#cache?.head.acknowledged;
    if (acknowledged === undefined || storedAt < acknowledged + REUSE_PERIOD_MS - REUSE_MARGIN_MS) return;
    throw new HoldfastError(
      'repository.reuse-expired',
      'This backup took over data of a snapshot that has become too old for that while it ran.',
    );
  }

  /** Puts the probe and writes the cache for the next run. Called when the manifest is acknowledged. */
  async commit(
    entries: Iterable<BlockEntry>,
    published: {
      readonly snapshot: string;
      readonly acknowledged: number;
      readonly ownList: { readonly digest: string; readonly packs: readonly PackBinding[] } | undefined;
    },
  ): Promise<void> {
    const { store, signal, binding, epoch } = this.#parts;
    const probe = `probes/${base32(randomBytes(10))}`;
    await store.put(probe, [Buffer.from(probe, 'utf8')], { signal });
    const writer = await BlockCacheWriter.create(binding);
    const used = new Set<string>();
    for (const entry of entries) {
      const { path } = entry.meta;
      const extents = [...this.extents(entry)];
      for (const { pack } of extents) if (pack !== null) used.add(pack);
      await writer.add({ path, size: entry.size, extents, hashes: this.#hashes.read(entry.hashes) });
    }
    // Lists of which nothing is left go, or a chain would carry every list that it ever had.
    const all = [
      ...(published.ownList === undefined ? [] : [published.ownList]),
      ...(this.#cache?.head.lists ?? []),
    ];
    const lists = all.filter(({ packs }) => packs.some(({ digest }) => used.has(digest)));
    const { snapshot, acknowledged } = published;
    const head: CacheHead = {
      snapshot,
      seed: base64(this.#seed),
      epoch,
      acknowledged,
      probe,
      lists,
      facts: this.#facts,
    };
    await writer.commit(head);
  }

  async close(): Promise<void> {
    this.#hashes.close();
    await this.#cache?.close();
  }
}

/** Neighbours that go on in the same frame become one: stretches are cut elsewhere in each run. */
function* merged(extents: Iterable<Extent>): Iterable<Extent> {
  let last: Extent | undefined;
  for (const extent of extents) {
    const goesOn =
      last?.pack === extent.pack &&
      last.frame === extent.frame &&
      (extent.pack === null || last.offset + last.length === extent.offset);
    if (last !== undefined && goesOn) last = { ...last, length: last.length + extent.length };
    else {
      if (last !== undefined) yield last;
      last = extent;
    }
  }
  if (last !== undefined) yield last;
}

/** "Exists" means: the same store, not rolled back, and reuse was not withdrawn. */
async function probeIsThere(store: ObjectStore, probe: string, signal: AbortSignal): Promise<boolean> {
  const { outcome, afterFailure } = await store.put(probe, [Buffer.from(probe, 'utf8')], { signal });
  // After a lost answer it may be our own attempt that exists now: that proves nothing.
  return outcome === 'exists' && afterFailure !== true;
}

/** Reads ranges of a file's old extents, forward only. */
class ExtentCursor {
  readonly #extents: readonly Extent[];
  #index = 0;
  /** Where the extent at `#index` starts in the file. */
  #start = 0;

  constructor(extents: readonly Extent[]) {
    this.#extents = extents;
  }

  *range(from: number, to: number): Iterable<Extent> {
    let at = from;
    while (at < to) {
      const extent = this.#extents[this.#index];
      if (extent === undefined) throw new Error('an unchanged block was not there before');
      const end = this.#start + extent.length;
      if (end <= at) {
        this.#index++;
        this.#start = end;
        continue;
      }
      const skip = at - this.#start;
      const length = Math.min(end, to) - at;
      yield {
        length,
        pack: extent.pack,
        frame: extent.frame,
        offset: extent.pack === null ? 0 : extent.offset + skip,
      };
      at += length;
    }
  }
}
