/**
 * Gives PostgreSQL the files that it asks for in recovery, for `restore_command`: segments put together from the
 * log, however it came, and histories. "Not there" is said only where it is proven, because PostgreSQL then ends
 * its recovery and starts a history of its own.
 */
import { access, open, readFile, rename, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { LogPartHeader, RepositoryReader, SnapshotHeader } from '../repository/contract.ts';
import type { Problem, Repository } from '../repository/repository.ts';
import {
  type ArchiveName,
  archiveName,
  type ControlFacts,
  formatLsn,
  lineageOf,
  lsnOf,
  parseLineage,
  parseSegmentName,
  positionOf,
  readControlFile,
} from '../sources/archive.ts';
import { ancestorsOf, type CoverPiece, coverSegment, type SegmentCover } from './wal-cover.ts';
import type { Workspace } from './workspace.ts';

export interface FetchPlace {
  /** The server's data directory: restore_command runs there. */
  readonly cwd: string;
  readonly source?: string | undefined;
}

export interface Fetched {
  readonly found: boolean;
  /** A whole segment, so that what follows it may be asked for next. */
  readonly whole: boolean;
}

/** One view of the repository, for any number of files. */
export class WalFetch {
  readonly #reader: () => Promise<RepositoryReader>;
  readonly #parts: readonly LogPartHeader[];
  readonly #snapshots: readonly SnapshotHeader[];
  readonly #problems: readonly Problem[];
  readonly #control: ControlFacts;
  readonly #cwd: string;
  readonly #context: RunContext;

  private constructor(
    reader: () => Promise<RepositoryReader>,
    view: {
      readonly parts: readonly LogPartHeader[];
      readonly snapshots: readonly SnapshotHeader[];
      readonly problems: readonly Problem[];
    },
    control: ControlFacts,
    cwd: string,
    context: RunContext,
  ) {
    this.#reader = reader;
    this.#parts = view.parts;
    this.#snapshots = view.snapshots;
    this.#problems = view.problems;
    this.#control = control;
    this.#cwd = cwd;
    this.#context = context;
  }

  /** Reads all heads. The secret is asked for when the first file is read. */
  static async open(
    workspace: Workspace,
    { cwd, source }: FetchPlace,
    context: RunContext,
    shared?: { reader?: Promise<RepositoryReader> },
  ): Promise<WalFetch> {
    const control = await readControlFile(join(cwd, 'global', 'pg_control'));
    if (control === undefined) {
      throw new HoldfastError(
        'postgres.wal-file-missing',
        `There is no global/pg_control in ${resolve(cwd)}, which says which cluster recovers.`,
        { next: 'Run the command in the data directory of the server, as restore_command does.' },
      );
    }
    const repository: Repository = await workspace.repository(context);
    const name = source ?? (await sourceOf(workspace, repository, context));
    const problems: Problem[] = [];
    const parts = await repository.logParts(name, context.signal, problems);
    const snapshots = await repository.snapshots(name, context.signal, []);
    const kept = shared ?? {};
    const reader = () => {
      kept.reader ??= (async () =>
        await repository.reader(await workspace.requireUnlock(context), context))();
      return kept.reader;
    };
    return new WalFetch(reader, { parts, snapshots, problems }, control, cwd, context);
  }

  /**
   * Writes the file to `to`: whole, flushed, by a rename. Not found only when it is proven that it never was
   * archived. Throws `recovery.wal-missing` where the log has a gap there, `recovery.wal-disagrees`,
   * `repository.damaged`, … With `wholeOnly` a segment that is not covered to its end is not written.
   */
  async file(file: string, to: string, wholeOnly = false): Promise<Fetched> {
    const name = archiveName(file);
    const target = resolve(this.#cwd, to);
    if (name.kind === 'segment') return await this.#segment(name, target, wholeOnly);
    const content = name.kind === 'history' ? await this.#history(name) : await this.#kept(name);
    if (content === undefined) {
      this.#refuseDamage(name);
      return { found: false, whole: false };
    }
    await this.#write(target, content);
    return { found: true, whole: false };
  }

  #lineage({ timeline }: ArchiveName): string {
    return lineageOf(this.#control.systemId, timeline);
  }

  // ---------------------------------------------------------------- segments

  async #segment(name: ArchiveName, to: string, wholeOnly: boolean): Promise<Fetched> {
    const { segmentSize } = this.#control;
    const place = parseSegmentName(name.name, segmentSize);
    if (place === undefined) {
      throw new HoldfastError(
        'postgres.not-a-wal-file',
        `${name.name} is no segment of a cluster whose segments have ${segmentSize} bytes.`,
      );
    }
    const [from, end] = [positionOf(place.lsn), positionOf(place.lsn + BigInt(segmentSize))];
    const lineage = this.#lineage(name);
    const ancestors = ancestorsOf(lineage, this.#headers) ?? [];
    const cover = coverSegment(lineage, ancestors, this.#parts, from, end);
    if (cover.pieces.length === 0 && !cover.later) {
      this.#refuseDamage(name);
      return { found: false, whole: false };
    }
    if (wholeOnly && cover.holes.length > 0) return { found: true, whole: false };
    const local = await this.#localSegment(name, segmentSize);
    // PostgreSQL looks into pg_wal next: a snapshot brings the log before its end with it.
    if (cover.pieces.length === 0 && local !== undefined) return { found: false, whole: false };
    const image = Buffer.alloc(segmentSize);
    const holes = await this.#fillHead(name, cover, image, from);
    const open = holes.filter((hole) => !(hole.to === end && !cover.later));
    for (const hole of open) {
      if (local === undefined || hole.from !== from) throw gap(name, hole);
      const [start, length] = [0, Number(lsnOf(hole.to) - lsnOf(hole.from))];
      local.copy(image, start, start, start + length);
    }
    await this.#fill(cover, image, from, name);
    await this.#write(to, [image]);
    return { found: true, whole: holes.length === 0 };
  }

  get #headers() {
    return [...this.#parts, ...this.#snapshots];
  }

  /** Copies every piece; where two hold the same place they must agree. */
  async #fill(cover: SegmentCover, image: Buffer, from: string, name: ArchiveName): Promise<void> {
    const start = lsnOf(from);
    let reached = start;
    for (const piece of cover.pieces) {
      for await (const { lsn, bytes } of this.#bytesOf(piece)) {
        const known = lsn < reached ? Math.min(bytes.length, Number(reached - lsn)) : 0;
        const at = Number(lsn - start);
        if (known > 0 && bytes.subarray(0, known).compare(image.subarray(at, at + known)) !== 0)
          throw disagrees(name, lsn);
        bytes.copy(image, at + known, known);
        const end = lsn + BigInt(bytes.length);
        if (end > reached) reached = end;
      }
    }
  }

  async *#bytesOf(piece: CoverPiece): AsyncIterable<{ readonly lsn: bigint; readonly bytes: Buffer }> {
    const { signal } = this.#context;
    const reader = await this.#reader();
    const opened = await reader.openPart(piece.part, signal);
    const [from, to] = [lsnOf(piece.from), lsnOf(piece.to)];
    let at = lsnOf(piece.part.from);
    for await (const chunk of opened.data()) {
      signal.throwIfAborted();
      const end = at + BigInt(chunk.length);
      if (end > from && at < to) {
        const skip = at < from ? Number(from - at) : 0;
        const keep = end > to ? Number(to - at) : chunk.length;
        const bytes = Buffer.from(chunk.buffer, chunk.byteOffset + skip, keep - skip);
        yield { lsn: at + BigInt(skip), bytes };
      }
      at = end;
      if (at >= to) return;
    }
  }

  /** What a segment begins with may be kept as a file: the end of a record whose beginning was unknown. */
  async #fillHead(name: ArchiveName, cover: SegmentCover, image: Buffer, from: string) {
    const [first, ...rest] = cover.holes;
    if (first === undefined || first.from !== from) return cover.holes;
    for (const { offset, bytes } of (await this.#pieces(name, from)) ?? []) bytes.copy(image, offset);
    const kept = (await this.#pieces(name, from))?.reduce((sum, { bytes }) => sum + bytes.length, 0) ?? 0;
    return BigInt(kept) >= lsnOf(first.to) - lsnOf(first.from) ? rest : cover.holes;
  }

  async #localSegment(name: ArchiveName, size: number): Promise<Buffer | undefined> {
    const path = join(this.#cwd, 'pg_wal', name.name);
    try {
      await access(path);
      const content = await readFile(path);
      return content.length === size ? content : undefined;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  // ---------------------------------------------------------------- other files

  async #history(name: ArchiveName): Promise<Uint8Array[] | undefined> {
    const lineage = this.#lineage(name);
    const ancestors = name.timeline === 1 ? undefined : ancestorsOf(lineage, this.#headers);
    if (ancestors === undefined) return undefined;
    const reader = await this.#reader();
    const knowing = this.#parts.filter((part) => part.lineage === lineage);
    for (const part of [...knowing.slice(0, 1), ...knowing.slice(-1)]) {
      const { histories } = (await reader.openPart(part, this.#context.signal)).meta as {
        histories?: Record<string, string>;
      };
      const text = histories?.[name.name];
      if (text !== undefined) return [Buffer.from(text)];
    }
    // The signed headers say as much as PostgreSQL reads of a history; only the reasons are lost.
    const lines = ancestors.map(
      (one) => `${parseLineage(one.lineage).timeline}\t${formatLsn(lsnOf(one.position))}\tas archived\n`,
    );
    return [Buffer.from(lines.join('\n'))];
  }

  async #kept(name: ArchiveName): Promise<Uint8Array[] | undefined> {
    const place = parseSegmentName(name.segment ?? '', this.#control.segmentSize);
    const pieces = place === undefined ? undefined : await this.#pieces(name, positionOf(place.lsn));
    return pieces?.map(({ bytes }) => bytes);
  }

  /** The pieces of a file that is kept as it is; undefined when there is none. */
  async #pieces(name: ArchiveName, position: string) {
    const reader = await this.#reader();
    const found = new Map<number, Buffer>();
    for (const part of this.#parts) {
      if (part.from !== position || part.to !== position || part.lineage !== this.#lineage(name)) continue;
      const opened = await reader.openPart(part, this.#context.signal);
      const { file, offset } = opened.meta;
      if (file !== name.name || typeof offset !== 'number') continue;
      const chunks: Uint8Array[] = [];
      for await (const chunk of opened.data()) chunks.push(Buffer.from(chunk));
      found.set(offset, Buffer.concat(chunks));
    }
    if (found.size === 0) return undefined;
    return [...found].sort(([a], [b]) => a - b).map(([offset, bytes]) => ({ offset, bytes }));
  }

  /** A damaged head could be of the very part that is asked for: then nothing is proven. */
  #refuseDamage(name: ArchiveName): void {
    const [problem] = this.#problems;
    if (problem === undefined) return;
    throw new HoldfastError(
      'repository.damaged',
      `Whether ${name.name} is in the repository cannot be told: ${problem.message}`,
      { details: { object: problem.name } },
    );
  }

  async #write(path: string, content: readonly Uint8Array[]): Promise<void> {
    const temporary = `${path}.holdfast-new`;
    try {
      const file = await open(temporary, 'w', 0o600);
      try {
        for (const piece of content) await file.writeFile(piece);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => undefined);
      throw error;
    }
  }
}

async function sourceOf(workspace: Workspace, repository: Repository, context: RunContext): Promise<string> {
  const configured = Object.values(workspace.configuration.sources).filter(({ kind }) => kind === 'postgres');
  if (configured.length === 1) return configured[0]!.name;
  const stored = await repository.sources(context.signal);
  if (configured.length === 0 && stored.length === 1) return stored[0]!;
  throw new HoldfastError(
    'command.which-source',
    `Which source is meant? The repository holds ${stored.join(', ')}.`,
    { next: 'Name it: holdfast wal fetch --source NAME %f %p' },
  );
}

function gap(name: ArchiveName, hole: { readonly from: string; readonly to: string }): HoldfastError {
  const [from, to] = [formatLsn(lsnOf(hole.from)), formatLsn(lsnOf(hole.to))];
  return new HoldfastError(
    'recovery.wal-missing',
    `The log from ${from} to ${to} on timeline ${name.timeline} is missing, and log after it is there.`,
    { details: { from, to, timeline: name.timeline, file: name.name } },
  );
}

function disagrees(name: ArchiveName, lsn: bigint): HoldfastError {
  return new HoldfastError(
    'recovery.wal-disagrees',
    `The log has two different contents at ${formatLsn(lsn)} on timeline ${name.timeline}.`,
    { details: { lsn: formatLsn(lsn), timeline: name.timeline } },
  );
}
