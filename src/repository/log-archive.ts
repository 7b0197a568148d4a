/**
 * A source's log as closed files bring it (`wal push`): the small side of the repository for processes that live
 * for a tenth of a second. No chain runs through it: each file is a stream of its own, so that files can be
 * stored at once and in any order, and a process that is killed leaves at most a second copy of equal bytes.
 * What is missing between two files is seen by the positions, which are signed.
 */
import { hkdfSync } from 'node:crypto';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import type { LogPartHeader, LogStretch } from './contract.ts';
import type { LocalState } from './local-state.ts';
import { type EncodedPart, finishPart, type PartPlace, preparePart, type SectionInput } from './log-part.ts';
import { checkPins, readRoot } from './root.ts';
import { type LoadedRoster, loadRoster } from './roster.ts';
import { newRunId } from './run-id.ts';
import { compressFrame, Extension, FRAME_BYTES, SectionWriter, sectionKey } from './section.ts';
import { type SigningKey, signingKey } from './signing.ts';

/** As for parts of a capture. */
const PART_LEVEL = 1;

/** What this host remembers of a source's archive: where, and the key of its digests. */
export interface ArchiveMemory {
  readonly directory: string;
  /** Secret, 32 bytes, of this host: a digest of plaintext under no key would tell guesses apart. */
  readonly digestKey: Buffer;
}

/**
 * The memory, without opening the repository. Undefined where this host never wrote to the repository at this
 * address. Throws `repository.state-unusable`.
 */
export async function archiveMemory(
  state: LocalState,
  address: string,
  source: string,
): Promise<ArchiveMemory | undefined> {
  const pin = await state.pinOfAddress(address);
  const seed = pin === undefined ? undefined : await state.readSeed(pin.repository);
  if (pin === undefined || seed === undefined) return undefined;
  return {
    directory: state.source(pin.repository, source).archiveDirectory,
    digestKey: Buffer.from(hkdfSync('sha256', seed, pin.repository, 'holdfast/1/archive-digest', 32)),
  };
}

export interface ArchiveOptions {
  readonly source: string;
  readonly kind: string;
}

export class LogArchive {
  readonly #store: ObjectStore;
  readonly #repository: string;
  readonly #roster: LoadedRoster;
  readonly #key: SigningKey;
  readonly #options: ArchiveOptions;
  readonly #context: RunContext;

  private constructor(
    store: ObjectStore,
    repository: string,
    roster: LoadedRoster,
    key: SigningKey,
    options: ArchiveOptions,
    context: RunContext,
  ) {
    this.#store = store;
    this.#repository = repository;
    this.#roster = roster;
    this.#key = key;
    this.#options = options;
    this.#context = context;
  }

  /**
   * Opens the repository's archive side, pins checked. Throws as `Repository.open` does, and
   * `repository.writer-not-enrolled`.
   */
  static async open(
    store: ObjectStore,
    state: LocalState,
    options: ArchiveOptions,
    context: RunContext,
  ): Promise<LogArchive> {
    const root = await readRoot(store, context.signal);
    const pin = await checkPins(root, store.address, state);
    const roster = await loadRoster(store, root.id, root.adminKey, pin?.roster ?? 0, context.signal);
    const seed = await state.readSeed(root.id);
    const key = seed === undefined ? undefined : signingKey(seed);
    const writer = key === undefined ? undefined : roster.writer(key.id);
    if (key === undefined || writer === undefined) {
      throw new HoldfastError(
        'repository.writer-not-enrolled',
        `This host is not enrolled to write to the repository ${root.id} at ${store.address}.`,
        { details: { state: state.directory } },
      );
    }
    return new LogArchive(store, root.id, roster, key, options, context);
  }

  /**
   * Stores the stretches of one file, in order, as one stream for each run that continues itself. Durable when it
   * resolves, with the names of the objects. Several files may be stored at once. After a failure nothing must
   * be done but to store the file again.
   */
  async put(
    stretches: Iterable<LogStretch> | AsyncIterable<LogStretch>,
    signal: AbortSignal,
  ): Promise<string[]> {
    const names: string[] = [];
    let last:
      | { readonly place: PartPlace; readonly digest: string; readonly stretch: LogStretch }
      | undefined;
    for await (const stretch of stretches) {
      const place: PartPlace =
        last !== undefined && continues(last.stretch, stretch)
          ? { ...last.place, sequence: last.place.sequence + 1, previous: last.digest }
          : { stream: newRunId(this.#context.clock.now()), sequence: 0, previous: null, replaces: null };
      const part = this.#seal(stretch, place, await compressAll(stretch.data));
      await this.#store.put(part.name, part.content, { sha256: Buffer.from(part.digest, 'hex'), signal });
      last = { place, digest: part.digest, stretch };
      names.push(part.name);
    }
    return names;
  }

  #seal(stretch: LogStretch, place: PartPlace, frames: readonly Frame[]): EncodedPart {
    const { source, kind } = this.#options;
    const { header, section } = preparePart(
      {
        repository: this.#repository,
        source,
        kind,
        place,
        roster: this.#roster,
        writer: this.#key.id,
        closed: this.#context.clock.now(),
      },
      stretch,
    );
    return finishPart(source, stretch, place, header, sealFrames(section, frames), this.#key);
  }

  /** Whether an object is there. Where the store does not let us look, it counts as there: it was acknowledged. */
  async has(name: string, signal: AbortSignal): Promise<boolean> {
    if (!this.#store.capabilities.read) return true;
    return (await this.#store.head(name, { signal })) !== undefined;
  }

  /**
   * What the repository's headers tell of this source's log, and of the lineages of its snapshots. Reads every
   * head: for the rare case in which this host remembers nothing. Null where it may not be read.
   */
  async known(signal: AbortSignal): Promise<{
    readonly parts: readonly LogPartHeader[];
    readonly lineages: ReadonlySet<string>;
  } | null> {
    const { read, list } = this.#store.capabilities;
    if (!read || !list) return null;
    const { readLogParts, readSnapshots } = await import('./catalog.ts');
    const catalog = { store: this.#store, repository: this.#repository, roster: this.#roster };
    const { source } = this.#options;
    // Damage elsewhere is for `verify` to tell; it must not stop the log.
    const parts = await readLogParts(catalog, source, [], signal);
    const snapshots = await readSnapshots(catalog, source, [], signal);
    return { parts, lineages: new Set([...parts, ...snapshots].map(({ lineage }) => lineage)) };
  }
}

/** Pieces of a file have one place in the log, and a stream has room for one part there. */
function continues(before: LogStretch, stretch: LogStretch): boolean {
  const log = before.from < before.to && stretch.from < stretch.to;
  return log && before.lineage === stretch.lineage && before.to === stretch.from;
}

interface Frame {
  readonly plain: Uint8Array;
  readonly compressed: Uint8Array;
}

async function compressAll(data: readonly Uint8Array[]): Promise<Frame[]> {
  const pieces: Uint8Array[] = [];
  for (const one of data) {
    for (let at = 0; at < one.length; at += FRAME_BYTES) pieces.push(one.subarray(at, at + FRAME_BYTES));
  }
  return await Promise.all(
    pieces.map(async (plain) => ({ plain, compressed: await compressFrame(plain, PART_LEVEL) })),
  );
}

function sealFrames(input: SectionInput, frames: readonly Frame[]): Uint8Array[] {
  const section: Uint8Array[] = [];
  const key = sectionKey(input.secret, input.headerDigest);
  const writer = new SectionWriter(key, PART_LEVEL, (bytes) => section.push(bytes));
  for (const { plain, compressed } of frames) writer.frame(plain, compressed);
  writer.end(
    new Map([
      [Extension.meta, input.meta],
      [Extension.commits, input.commits],
    ]),
  );
  return section;
}
