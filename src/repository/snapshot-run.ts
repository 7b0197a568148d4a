/** One run that writes a snapshot: lanes into the pipeline, then listing, pack list and manifest, in this order. */
import type { RunContext } from '../core/context.ts';
import type { ObjectStore } from '../storage/store.ts';
import { removeBlockCache } from './block-cache.ts';
import { type BlockEntry, BlockRun } from './block-run.ts';
import type {
  BlockOptions,
  BlockSink,
  EntryMeta,
  Extent,
  Lane,
  SnapshotFacts,
  SnapshotHeader,
  SnapshotRun,
  SnapshotRunOptions,
  SnapshotStats,
} from './contract.ts';
import { type ListedEntry, ListingWriter } from './listing.ts';
import type { LocalLock, SourceState } from './local-state.ts';
import { encodePackList, packListName } from './pack-list.ts';
import { Pipeline, type PipelineOptions } from './pipeline.ts';
import type { LoadedRoster } from './roster.ts';
import { newRunId } from './run-id.ts';
import { FRAME_BYTES } from './section.ts';
import type { SigningKey } from './signing.ts';
import { encodeManifest, snapshotName } from './snapshot.ts';

/** 1 MiB frames at level 1 store what the established tools store at their level 3 (docs/benchmarks.md). */
const DEFAULT_LEVEL = 1;
const HOLE = -1;

/** An entry while its frames are on their way: flat [ticket or HOLE, offset, length, …]. */
interface LaneEntry {
  readonly meta: EntryMeta;
  readonly stretches: number[];
  size: number;
}

type PendingEntry = LaneEntry | BlockEntry;

/** The producing end of one lane: fills frame buffers and remembers which file's bytes are where. */
class FrameLane implements Lane {
  readonly #pipeline: Pipeline;
  readonly #entries: PendingEntry[];
  #buffer: Uint8Array | undefined;
  #used = 0;
  #open: LaneEntry | undefined;
  /** Stretches in the buffer that is being filled: their ticket is known when it is submitted. */
  #unplaced: { readonly entry: LaneEntry; readonly at: number }[] = [];

  constructor(pipeline: Pipeline, entries: PendingEntry[]) {
    this.#pipeline = pipeline;
    this.#entries = entries;
  }

  begin(meta: EntryMeta): void {
    if (this.#open !== undefined) throw new Error(`${this.#open.meta.path} is still open`);
    this.#open = { meta, stretches: [], size: 0 };
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    const entry = this.#opened();
    let at = 0;
    while (at < bytes.length) {
      this.#buffer ??= this.#pipeline.take();
      const length = Math.min(bytes.length - at, FRAME_BYTES - this.#used);
      this.#buffer.set(
        at === 0 && length === bytes.length ? bytes : bytes.subarray(at, at + length),
        this.#used,
      );
      this.#place(entry, length);
      this.#used += length;
      at += length;
      if (this.#used === FRAME_BYTES) this.submit();
    }
    entry.size += bytes.length;
    return this.#pipeline.ready();
  }

  /** Extends the entry's last stretch when it goes on in the same frame, else starts one. */
  #place(entry: LaneEntry, length: number): void {
    const last = this.#unplaced.at(-1);
    const { stretches } = entry;
    const end = stretches.length;
    const continues =
      last?.entry === entry &&
      last.at === end - 3 &&
      (stretches[end - 2] as number) + (stretches[end - 1] as number) === this.#used;
    if (continues) {
      stretches[end - 1] = (stretches[end - 1] as number) + length;
      return;
    }
    this.#unplaced.push({ entry, at: end });
    stretches.push(0, this.#used, length);
  }

  hole(length: number): void {
    const entry = this.#opened();
    if (length > 0) entry.stretches.push(HOLE, 0, length);
    entry.size += length;
  }

  end(): void {
    this.#entries.push(this.#opened());
    this.#open = undefined;
  }

  #opened(): LaneEntry {
    if (this.#open === undefined) throw new Error('no file is open in this lane');
    return this.#open;
  }

  /** Sends what is in the buffer. */
  submit(): void {
    if (this.#buffer === undefined || this.#used === 0) return;
    const ticket = this.#pipeline.submit(this.#buffer, this.#used);
    for (const { entry, at } of this.#unplaced) entry.stretches[at] = ticket;
    this.#unplaced = [];
    this.#buffer = undefined;
    this.#used = 0;
  }

  /** Ends the lane; an open file is a defect of the source. */
  finish(): void {
    if (this.#open !== undefined) throw new Error(`${this.#open.meta.path} was not ended`);
    this.submit();
  }
}

/** What `beginSnapshot` hands to a run. */
export interface SnapshotRunParts {
  readonly store: ObjectStore;
  readonly repository: string;
  readonly key: SigningKey;
  readonly roster: LoadedRoster;
  readonly state: SourceState;
  readonly options: SnapshotRunOptions;
  readonly context: RunContext;
}

export class StoredSnapshotRun implements SnapshotRun {
  readonly #parts: SnapshotRunParts;
  #pipeline: Pipeline | undefined;
  #blocks: BlockRun | undefined;
  readonly #lanes: FrameLane[] = [];
  readonly #entries: PendingEntry[] = [];
  readonly #started: number;
  readonly #startedMonotonic: number;
  readonly #lock: LocalLock;
  #storedBytes = 0;

  constructor(parts: SnapshotRunParts, lock: LocalLock) {
    this.#parts = parts;
    this.#lock = lock;
    this.#started = parts.context.clock.now();
    this.#startedMonotonic = parts.context.clock.monotonic();
  }

  /** Made when first needed: its workers must know the reader module, if there will be one. */
  #openPipeline(reader?: PipelineOptions['reader']): Pipeline {
    const { store, repository, options, key, roster, context } = this.#parts;
    return new Pipeline({
      store,
      context: {
        repository,
        source: options.source,
        writer: key.id,
        epoch: roster.roster.epoch,
        recipients: roster.recipientKeys,
      },
      level: options.compressionLevel ?? DEFAULT_LEVEL,
      signal: context.signal,
      onStored: (pack) => {
        this.#storedBytes += pack.bytes;
      },
      ...(reader === undefined ? {} : { reader }),
    });
  }

  get #frames(): Pipeline {
    this.#pipeline ??= this.#openPipeline();
    return this.#pipeline;
  }

  get storedBytes(): number {
    return this.#storedBytes;
  }

  lane(): Lane {
    const lane = new FrameLane(this.#frames, this.#entries);
    this.#lanes.push(lane);
    return lane;
  }

  entry(meta: EntryMeta): void {
    this.#entries.push({ meta, stretches: [], size: 0 });
  }

  async blocks(options: BlockOptions): Promise<BlockSink> {
    if (this.#pipeline !== undefined) throw new Error('the block-wise side is opened first');
    const { store, repository, key, roster, state, context } = this.#parts;
    const { module, data, full, accept } = options;
    const openPipeline = (seed: Uint8Array) => {
      this.#pipeline = this.#openPipeline({ module, data, seed });
      return this.#pipeline;
    };
    const source = this.#parts.options.source;
    const binding = { directory: state.cacheDirectory, address: store.address, repository, source, key };
    const { signal, clock } = context;
    const add = (entry: BlockEntry) => void this.#entries.push(entry);
    const parts = { store, openPipeline, binding, epoch: roster.roster.epoch, now: clock.now(), signal, add };
    this.#blocks = await BlockRun.open(parts, full, accept);
    return this.#blocks;
  }

  async publish(facts: SnapshotFacts): Promise<{ header: SnapshotHeader; stats: SnapshotStats }> {
    try {
      for (const lane of this.#lanes) lane.finish();
      await this.#frames.flush();
      const listing = await this.#storeListing();
      return await this.#storeManifest(facts, listing);
    } finally {
      await this.discard();
    }
  }

  async #storeListing(): Promise<{ pack: string; frame: number }[]> {
    const tickets: number[] = [];
    const writer = new ListingWriter((chunk) => {
      const buffer = this.#frames.take();
      buffer.set(chunk);
      tickets.push(this.#frames.submit(buffer, chunk.length));
    });
    for (const entry of this.#entries) {
      await this.#frames.ready();
      writer.add(this.#listed(entry));
    }
    writer.flush();
    await this.#frames.flush();
    return tickets.map((ticket) => {
      const { pack, frame } = this.#frames.place(ticket);
      return { pack: this.#frames.pack(pack).digest, frame };
    });
  }

  #listed(entry: PendingEntry): ListedEntry {
    if ('pieces' in entry) {
      return { ...entry.meta, size: entry.size, extents: (this.#blocks as BlockRun).extents(entry) };
    }
    const pipeline = this.#frames;
    const { stretches } = entry;
    function* extents(): Iterable<Extent> {
      for (let i = 0; i < stretches.length; i += 3) {
        const [ticket, offset, length] = stretches.slice(i, i + 3) as [number, number, number];
        if (ticket === HOLE) yield { length, pack: null, frame: 0, offset: 0 };
        else {
          const { pack, frame } = pipeline.place(ticket);
          yield { length, pack: pipeline.pack(pack).digest, frame, offset };
        }
      }
    }
    return { ...entry.meta, size: entry.size, extents: extents() };
  }

  async #storeManifest(facts: SnapshotFacts, listing: readonly { pack: string; frame: number }[]) {
    const { store, repository, key, roster, state, options, context } = this.#parts;
    const { signal, clock } = context;
    const packs = this.#frames.packs();
    const list = encodePackList(packs);
    const { storedAt: listed } = await store.put(packListName(list.digest), [list.content], {
      sha256: Buffer.from(list.digest, 'hex'),
      signal,
    });
    this.#blocks?.checkAge(listed);
    const own = { digest: list.digest, bitmap: null };
    const lists = this.#blocks?.lists(own, this.#usedPacks()) ?? [own];
    const stats: SnapshotStats = {
      files: this.#entries.filter(({ meta }) => meta.type === 'file').length,
      bytes: this.#entries.reduce((sum, { size }) => sum + size, 0),
      storedBytes: this.#storedBytes,
      packs: packs.length,
      durationMs: Math.round(clock.monotonic() - this.#startedMonotonic),
    };
    const head = await readHead(state, key.id);
    const finished = clock.now();
    const id = newRunId(finished);
    const sequence = head.sequence + 1;
    const { content, digest } = encodeManifest(
      {
        repository,
        id,
        source: options.source,
        kind: options.kind,
        sequence,
        previous: head.digest,
        roster,
        started: this.#started,
        finished,
        facts,
        body: {
          lists,
          listing,
          meta: facts.meta,
          warnings: facts.warnings,
          stats,
        },
      },
      key,
    );
    const name = snapshotName(options.source, id, digest);
    const { storedAt } = await store.put(name, content, { sha256: Buffer.from(digest, 'hex'), signal });
    await state.write('snapshot-head', { writer: key.id, sequence, digest });
    await this.#remember({
      snapshot: digest,
      acknowledged: storedAt,
      ownList: { digest: list.digest, packs },
    });
    const { meta: _meta, warnings: _warnings, ...claims } = facts;
    const { files, bytes, storedBytes } = stats;
    const run = { started: this.#started, finished, files, bytes, storedBytes, storedAt };
    const who = { id, digest, name, source: options.source, kind: options.kind, writer: key.id };
    const header: SnapshotHeader = { ...claims, ...who, ...run, sequence, previous: head.digest };
    return { header, stats };
  }

  /** Packs of earlier runs that this snapshot's files lie in. */
  #usedPacks(): Set<string> {
    const used = new Set<string>();
    for (const entry of this.#entries) {
      if (!('pieces' in entry)) continue;
      for (const { pack } of (this.#blocks as BlockRun).extents(entry)) if (pack !== null) used.add(pack);
    }
    return used;
  }

  /** The snapshot exists already: a cache that cannot be written costs the next run time, and is said. */
  async #remember(published: Parameters<BlockRun['commit']>[1]): Promise<void> {
    if (this.#blocks === undefined) return;
    try {
      await this.#blocks.commit(this.#blockEntries(), published);
    } catch (error) {
      await removeBlockCache(this.#parts.state.cacheDirectory);
      this.#parts.context.log.warn(
        'the cache of change detection could not be written: the next backup stores everything',
        {
          error: error instanceof Error ? error.message : String(error),
        },
      );
    }
  }

  *#blockEntries(): Iterable<BlockEntry> {
    for (const entry of this.#entries) if ('pieces' in entry) yield entry;
  }

  async discard(): Promise<void> {
    await this.#pipeline?.close();
    await this.#blocks?.close();
    await this.#lock.release();
  }
}

async function readHead(
  state: SourceState,
  writer: string,
): Promise<{ sequence: number; digest: string | null }> {
  const head = await state.read('snapshot-head');
  const { sequence, digest } = head ?? {};
  if (head?.writer !== writer || typeof sequence !== 'number' || typeof digest !== 'string') {
    return { sequence: 0, digest: null };
  }
  return { sequence, digest };
}
