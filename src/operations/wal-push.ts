/**
 * Archives files of a PostgreSQL server, for `archive_command`: the named one, and then those that wait beside it.
 * A file counts as archived only when the repository holds it durably.
 */
import { type FileHandle, mkdir, open, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError, systemErrorCode } from '../core/errors.ts';
import type { LogStretch } from '../repository/contract.ts';
import { LocalState } from '../repository/local-state.ts';
import { archiveMemory, LogArchive } from '../repository/log-archive.ts';
import {
  type ArchiveName,
  archiveName,
  type Carry,
  fileStretch,
  fits,
  historyName,
  parseArchiveName,
  parseHistory,
  parseSegmentName,
  readControlFile,
  readSegmentHeader,
  SegmentCutter,
  type SegmentHeader,
  segmentName,
  type TimelineFacts,
  timelineFacts,
} from '../sources/archive.ts';
import { openStore } from '../storage/open.ts';
import type { ObjectStore } from '../storage/store.ts';
import { type ArchivedFile, ArchiveRecord, type FileMark, markOf, sameMark } from './archive-record.ts';

/** Where to and for whom: what the fast path keeps resolved. */
export interface PushPlace {
  /** Address of the repository. */
  readonly repository: string;
  /** The host's state folder. */
  readonly state: string;
  readonly source: string;
  readonly kind: string;
}

export interface PushOptions extends PushPlace {
  /** As PostgreSQL gives it (`%p`); relative to `cwd`. */
  readonly path: string;
  /** The server's data directory: archive_command runs there. */
  readonly cwd: string;
  /** Take files that wait beside it too. Default true. */
  readonly others?: boolean;
  /** The command line but for the path: whose calls may trust the marks that are left for the others. */
  readonly asked?: string;
}

export interface PushResult {
  readonly file: string;
  /** False when it was archived before, with equal content. */
  readonly stored: boolean;
  /** How many waiting files were archived besides. */
  readonly others: number;
}

/** Files stored at once, besides the one being read: what memory allows. */
const storedAtOnce = 3;
/** Waiting files taken by one call, and for how long at most: PostgreSQL must see its own file done. */
const othersLimit = 512;
const othersMs = 60_000;
/** Beside the files. */
const marksFolder = 'holdfast-archived';
/** Read at once; larger segments go through in pieces. */
const windowBytes = 16 * 1024 * 1024;

/** One attempt soon says that the store is away: PostgreSQL itself tries again, and shows what was said. */
const resilience = { attemptMs: 60_000, totalMs: 60_000 };

/**
 * Resolves when the file is durable in the repository. Throws `postgres.not-a-wal-file`,
 * `postgres.wal-file-missing`, `postgres.archive-conflict`, `postgres.other-cluster`, `postgres.wal-invalid`,
 * `postgres.history-missing`, and what opening the repository throws. Killed at any moment it has stored the file
 * or not, and may be called again.
 */
export async function pushWal(options: PushOptions, context: RunContext): Promise<PushResult> {
  const path = join(options.cwd === '' ? '.' : options.cwd, options.path);
  const absolute = options.path.startsWith('/') ? options.path : path;
  const name = archiveName(basename(absolute));
  const store = await openStore(options.repository, { signal: context.signal, resilience });
  try {
    const push = await WalPush.open(options, dirname(absolute), store, context);
    const stored = await push.file(name, 'asked');
    const others = options.others === false ? 0 : await push.others(name);
    return { file: name.name, stored, others };
  } finally {
    await store.close();
  }
}

class WalPush {
  readonly #options: PushOptions;
  readonly #folder: string;
  readonly #store: ObjectStore;
  readonly #state: LocalState;
  readonly #context: RunContext;
  #record: ArchiveRecord | undefined;
  #archive: Promise<LogArchive> | undefined;
  #systemId: string | undefined;
  /** What the next segment needs of the one read before it. */
  #carry: { readonly segment: string; readonly carry: Carry | undefined } | undefined;

  private constructor(
    options: PushOptions,
    folder: string,
    store: ObjectStore,
    state: LocalState,
    record: ArchiveRecord | undefined,
    context: RunContext,
  ) {
    this.#options = options;
    this.#folder = folder;
    this.#store = store;
    this.#state = state;
    this.#record = record;
    this.#context = context;
  }

  static async open(
    options: PushOptions,
    folder: string,
    store: ObjectStore,
    context: RunContext,
  ): Promise<WalPush> {
    const state = await LocalState.open(options.state);
    const memory = await archiveMemory(state, options.repository, options.source);
    const record = memory === undefined ? undefined : await ArchiveRecord.open(memory);
    return new WalPush(options, folder, store, state, record, context);
  }

  /** Archives one file and waits for it. False when it was there already. */
  async file(name: ArchiveName, why: 'asked' | 'waiting'): Promise<boolean> {
    const storing = await this.#begin(name, why);
    await storing?.done;
    return storing !== undefined;
  }

  /** Archives what waits beside the file; a failure there is for its own call to tell. */
  async others(asked: ArchiveName): Promise<number> {
    const { clock, signal, log } = this.#context;
    const until = clock.monotonic() + othersMs;
    let stored = 0;
    const running = new Set<Promise<void>>();
    let failed = false;
    try {
      for (const name of await this.#waiting(asked)) {
        if (signal.aborted || failed || stored + running.size >= othersLimit || clock.monotonic() > until)
          break;
        while (running.size >= storedAtOnce) await Promise.race(running);
        const storing = await this.#begin(name, 'waiting');
        if (storing === undefined) continue;
        const task = storing.done.then(
          async () => {
            stored += 1;
            await this.#leaveMark(name);
          },
          (error: unknown) => {
            failed = true;
            log.debug('a waiting file could not be archived yet', { file: name.name, error });
          },
        );
        running.add(task);
        task.finally(() => running.delete(task));
      }
    } catch (error) {
      log.debug('the waiting files could not be archived yet', { error });
    }
    await Promise.all(running);
    return stored;
  }

  /**
   * For the launcher, which answers PostgreSQL's own call for the file by it (bin/holdfast). Without the mark that
   * call is slower, nothing else.
   */
  async #leaveMark({ name }: ArchiveName): Promise<void> {
    const { asked } = this.#options;
    const known = this.#record?.find(name);
    if (asked === undefined || known === undefined || asked.includes('\n')) return;
    const folder = join(this.#folder, marksFolder);
    const nanoseconds = known.changed.padStart(10, '0');
    const time = `${nanoseconds.slice(0, -9)}.${nanoseconds.slice(-9)}`;
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = join(folder, name);
      await writeFile(`${path}.new`, `${known.inode} ${known.size} ${time}\n${asked}\n`, { mode: 0o600 });
      await rename(`${path}.new`, path);
    } catch (error) {
      this.#context.log.debug('a mark could not be left', { folder, error });
    }
  }

  /** Names that PostgreSQL has marked as ready, histories first, in the order of the log. */
  async #waiting(asked: ArchiveName): Promise<ArchiveName[]> {
    const names: ArchiveName[] = [];
    let entries: string[];
    try {
      entries = await readdir(join(this.#folder, 'archive_status'));
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return [];
      throw error;
    }
    for (const entry of entries) {
      if (!entry.endsWith('.ready')) continue;
      const name = parseArchiveName(entry.slice(0, -'.ready'.length));
      if (name !== undefined && name.name !== asked.name) names.push(name);
    }
    const rank = ({ kind }: ArchiveName) => (kind === 'history' ? 0 : 1);
    return names.sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  }

  /** Reads and checks a file and begins to store it; undefined when it is archived already. */
  async #begin(
    name: ArchiveName,
    why: 'asked' | 'waiting',
  ): Promise<{ readonly done: Promise<void> } | undefined> {
    const path = join(this.#folder, name.name);
    const { mark, file } = await openFile(path);
    try {
      const known = this.#record?.find(name.name);
      if (known !== undefined && (await this.#isArchived(known, mark, file, why))) return undefined;
      const archive = await this.#open();
      if (name.kind === 'segment') return await this.#segment(archive, name, mark, file);
      return await this.#asItIs(archive, name, mark, file);
    } finally {
      await file.close();
    }
  }

  #open(): Promise<LogArchive> {
    const { source, kind } = this.#options;
    this.#archive ??= LogArchive.open(this.#store, this.#state, { source, kind }, this.#context);
    return this.#archive;
  }

  /** The record exists once the repository was opened: opening pins it. */
  async #remembered(): Promise<ArchiveRecord> {
    if (this.#record !== undefined) return this.#record;
    const { repository, source } = this.#options;
    const memory = await archiveMemory(this.#state, repository, source);
    if (memory === undefined) {
      throw new HoldfastError(
        'repository.writer-not-enrolled',
        `This host has not yet used the repository at ${repository}.`,
        { details: { state: this.#state.directory } },
      );
    }
    this.#record = await ArchiveRecord.open(memory);
    return this.#record;
  }

  async #isArchived(
    known: ArchivedFile,
    mark: FileMark,
    file: FileHandle,
    why: 'asked' | 'waiting',
  ): Promise<boolean> {
    if (!sameMark(known, mark)) {
      const record = await this.#remembered();
      const same =
        known.size === mark.size &&
        record.digest(known.name, await readAll(file, mark.size)) === known.digest;
      if (!same) throw conflict(known.name, 'this host');
    }
    // What waits is asked for later, and looked up then.
    if (why === 'waiting') return true;
    const archive = await this.#open();
    return await archive.has(known.object, this.#context.signal);
  }

  // ---------------------------------------------------------------- segments

  async #segment(
    archive: LogArchive,
    name: ArchiveName,
    mark: FileMark,
    file: FileHandle,
  ): Promise<{ readonly done: Promise<void> }> {
    const first = await readWindow(file, 0, Math.min(windowBytes, mark.size));
    const header = readSegmentHeader(name, first, mark.size);
    const timeline = await this.#timeline(name, header.systemId);
    const before = await this.#checkCluster(archive, name, header.systemId);
    const known = await this.#carryBefore(name, header, timeline);
    const carry = known !== undefined && fits(header, known, first.subarray(0, 8192)) ? known : undefined;
    const cutter = new SegmentCutter({ name, header, timeline, carry, disjoint: known !== undefined });
    const record = await this.#remembered();
    const tags: Uint8Array[] = [first];
    if (mark.size <= windowBytes) {
      cutter.push(first);
      const end = cutter.end();
      const stretches = cutter.take();
      if (before !== undefined) checkAgainst(name, before, stretches);
      if (!end.joined && before?.length !== 0) this.#tellGap(name, known !== undefined);
      this.#carry = { segment: name.name, carry: end.carry };
      const store = async () => {
        const names = await archive.put(stretches, this.#context.signal);
        const digest = record.digest(name.name, tags);
        await record.add({ name: name.name, ...mark, digest, object: names.at(-1)! }, end.carry);
      };
      return { done: store() };
    }
    await this.#large(archive, { name, mark, file, first, cutter, record, known: known !== undefined });
    return { done: Promise.resolve() };
  }

  /** A segment that is larger than a window is stored piece by piece, and its digest taken in a second pass. */
  async #large(
    archive: LogArchive,
    segment: {
      readonly name: ArchiveName;
      readonly mark: FileMark;
      readonly file: FileHandle;
      readonly first: Uint8Array;
      readonly cutter: SegmentCutter;
      readonly record: ArchiveRecord;
      readonly known: boolean;
    },
  ): Promise<void> {
    const { name, mark, file, first, cutter, record } = segment;
    let ended: ReturnType<SegmentCutter['end']> | undefined;
    async function* stretches(): AsyncIterable<LogStretch> {
      cutter.push(first);
      yield* cutter.take();
      for (let at = first.length; at < mark.size; at += windowBytes) {
        cutter.push(await readWindow(file, at, Math.min(windowBytes, mark.size - at)));
        yield* cutter.take();
      }
      ended = cutter.end();
      yield* cutter.take();
    }
    const names = await archive.put(stretches(), this.#context.signal);
    const digest = record.digest(name.name, await readAll(file, mark.size));
    if (ended?.joined !== true) this.#tellGap(name, segment.known);
    this.#carry = { segment: name.name, carry: ended?.carry };
    await record.add({ name: name.name, ...mark, digest, object: names.at(-1)! }, ended?.carry);
  }

  #tellGap(name: ArchiveName, known: boolean): void {
    const why = known
      ? 'it does not continue the segment before it as that was archived'
      : 'it begins with the end of a record whose beginning this host does not know';
    this.#context.log.warn(
      `The log has a gap at the beginning of ${name.name}: ${why}. Harmless where nothing was archived before it; else take a new snapshot now: holdfast backup`,
    );
  }

  /** The beginning of the record that the segment continues. */
  async #carryBefore(
    name: ArchiveName,
    header: SegmentHeader,
    timeline: TimelineFacts,
  ): Promise<Carry | undefined> {
    const { lsn, segmentSize } = header;
    if (lsn === 0n) return undefined;
    const { fork, parent } = timeline;
    const owner = fork !== null && parent !== null && lsn <= fork ? parent : name.timeline;
    const before = segmentName(owner, lsn - 1n, segmentSize);
    if (this.#carry?.segment === before && this.#carry.carry !== undefined) return this.#carry.carry;
    const record = await this.#remembered();
    const remembered = await record.carry(before);
    if (remembered !== undefined || header.continued === 0) return remembered;
    return await this.#carryFromFile(before, header, timeline);
  }

  /** PostgreSQL keeps a segment for a while after it was archived. */
  async #carryFromFile(
    segment: string,
    header: SegmentHeader,
    timeline: TimelineFacts,
  ): Promise<Carry | undefined> {
    if (header.segmentSize > windowBytes) return undefined;
    const name = archiveName(segment);
    try {
      const content = await readFile(join(this.#folder, segment));
      const own = readSegmentHeader(name, content, content.length);
      if (own.systemId !== header.systemId) return undefined;
      const cutter = new SegmentCutter({ name, header: own, timeline, carry: undefined });
      cutter.push(content);
      return cutter.end().carry;
    } catch (error) {
      const gone = systemErrorCode(error) === 'ENOENT' || isHoldfastError(error, 'postgres.wal-invalid');
      if (gone) return undefined;
      throw error;
    }
  }

  // ---------------------------------------------------------------- other files

  /** Partial segments, histories and backup histories are kept as files beside the log. */
  async #asItIs(
    archive: LogArchive,
    name: ArchiveName,
    mark: FileMark,
    file: FileHandle,
  ): Promise<{ readonly done: Promise<void> }> {
    const control = await this.#control();
    const content = await readAll(file, mark.size);
    let systemId = control?.systemId ?? this.#systemId ?? (await (await this.#remembered()).systemId());
    if (name.kind === 'partial') {
      const header = readSegmentHeader(name, content[0] ?? new Uint8Array(0), mark.size);
      systemId = header.systemId;
    }
    if (systemId === undefined) throw unknownCluster(name);
    await this.#checkCluster(archive, name, systemId);
    const text = name.kind === 'history' ? Buffer.concat(content).toString('utf8') : undefined;
    const timeline = await this.#timeline(name, systemId, text);
    const size = control?.segmentSize ?? 16 * 1024 * 1024;
    const position =
      name.segment === null ? (timeline.fork ?? 0n) : (parseSegmentName(name.segment, size)?.lsn ?? 0n);
    let offset = 0;
    const stretches = content.map((piece) => {
      const stretch = fileStretch(name, { systemId, position, timeline, offset, content: piece });
      offset += piece.length;
      return stretch;
    });
    const record = await this.#remembered();
    const store = async () => {
      const names = await archive.put(stretches, this.#context.signal);
      const digest = record.digest(name.name, content);
      await record.add({ name: name.name, ...mark, digest, object: names.at(-1)! }, undefined);
    };
    return { done: store() };
  }

  async #control() {
    return (
      (await readControlFile(join(dirname(this.#folder), 'global', 'pg_control'))) ??
      (await readControlFile(join(this.#options.cwd, 'global', 'pg_control')))
    );
  }

  /** The history of the file's timeline, from beside it; `own` is the history itself when that is the file. */
  async #timeline(name: ArchiveName, systemId: string, own?: string): Promise<TimelineFacts> {
    if (name.timeline === 1) return timelineFacts(systemId, null, {});
    const ownName = historyName(name.timeline);
    const text = own ?? (await this.#historyText(ownName));
    if (text === undefined) {
      throw new HoldfastError(
        'postgres.history-missing',
        `${name.name} is of timeline ${name.timeline}, and its history ${ownName} is not in ${this.#folder}.`,
      );
    }
    const histories: Record<string, string> = { [ownName]: text };
    for (const { timeline } of parseHistory(text)) {
      const ancestor = historyName(timeline);
      const known = timeline === 1 ? undefined : await this.#historyText(ancestor);
      if (known !== undefined) histories[ancestor] = known;
    }
    return timelineFacts(systemId, text, histories);
  }

  async #historyText(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.#folder, name), 'utf8');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  // ---------------------------------------------------------------- the right cluster

  /**
   * Refuses another cluster than the one archived so far. Where this host remembers none, the repository's headers
   * are asked, and what they hold is returned, to be compared with.
   */
  async #checkCluster(archive: LogArchive, name: ArchiveName, systemId: string) {
    this.#systemId ??= await (await this.#remembered()).systemId();
    if (this.#systemId !== undefined) {
      if (this.#systemId !== systemId) throw otherCluster(name, systemId, this.#systemId);
      return undefined;
    }
    const known = await archive.known(this.#context.signal);
    const lineages = [...(known?.lineages ?? [])].map((lineage) => lineage.split('/')[0]!);
    if (lineages.length > 0 && !lineages.includes(systemId)) throw otherCluster(name, systemId, lineages[0]!);
    if (known === null || known.parts.length > 0) {
      this.#context.log.warn(
        'This host remembers nothing of what was archived before, and cannot open it: an equal file is stored once more, and a different one is noticed only where commit times tell.',
      );
    }
    await (await this.#remembered()).keepSystemId(systemId);
    this.#systemId = systemId;
    return known?.parts;
  }
}

/** Compares by what headers tell: a part within the segment begins and ends with commits that are in it as well. */
function checkAgainst(
  name: ArchiveName,
  parts: NonNullable<Awaited<ReturnType<LogArchive['known']>>>['parts'],
  stretches: readonly LogStretch[],
): void {
  for (const { lineage, from, to, commits } of stretches) {
    const times = new Set(commits.map(({ time }) => String(time)));
    for (const part of parts) {
      if (part.lineage !== lineage || part.from < from || part.to > to || part.times === null) continue;
      if (!times.has(part.times.first) || !times.has(part.times.last)) throw conflict(name.name, part.writer);
    }
  }
}

async function openFile(path: string): Promise<{ readonly mark: FileMark; readonly file: FileHandle }> {
  try {
    const file = await open(path, 'r');
    return { mark: await markOf(path), file };
  } catch (cause) {
    if (systemErrorCode(cause) !== 'ENOENT') throw cause;
    throw new HoldfastError('postgres.wal-file-missing', `There is no file ${path} to archive.`, { cause });
  }
}

async function readWindow(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(bytes, done, length - done, at + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

async function readAll(file: FileHandle, size: number): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  for (let at = 0; at < size; at += windowBytes)
    pieces.push(await readWindow(file, at, Math.min(windowBytes, size - at)));
  return pieces.length === 0 ? [Buffer.alloc(0)] : pieces;
}

function conflict(name: string, writer: string): HoldfastError {
  return new HoldfastError(
    'postgres.archive-conflict',
    `${name} was archived before with another content (by ${writer}); it was not stored.`,
    { details: { file: name } },
  );
}

function otherCluster(name: ArchiveName, systemId: string, known: string): HoldfastError {
  return new HoldfastError(
    'postgres.other-cluster',
    `${name.name} is of the cluster with the system identifier ${systemId}; the log kept for this source is of ${known}.`,
    { next: 'Correct archive_command, or give this cluster a source name of its own.' },
  );
}

function unknownCluster(name: ArchiveName): HoldfastError {
  return new HoldfastError(
    'postgres.wal-file-missing',
    `${name.name} does not say which cluster it belongs to, and there is no global/pg_control to ask.`,
  );
}
