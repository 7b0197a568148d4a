/**
 * Listings (docs/03-format.md §6): a snapshot's entries in chunks of at most a frame. Each chunk stands by
 * itself: its first line is {"packs":[hex…]}, then one line of JSON an entry; extents are flat
 * [length, pack index or -1 for a hole, frame, offset, …]. A file with many extents continues in lines
 * {"more":true,"x":[…]}.
 */
import { damaged, HEX64 } from './codec.ts';
import type { Entry, EntryMeta, EntryType, Extent, JsonObject } from './contract.ts';
import { FRAME_BYTES } from './section.ts';

/** Extents a line, so that a line always fits a chunk. */
const EXTENTS_PER_LINE = 4096;
/** A chunk is closed when it gets this large; the longest line and the packs it brings still fit the frame. */
const CHUNK_BYTES = FRAME_BYTES >> 1;

export interface ListedEntry extends EntryMeta {
  readonly size: number;
  readonly extents: Iterable<Extent>;
}

/** Encodes entries into chunks, calling `emit` for each. */
export class ListingWriter {
  readonly #emit: (chunk: Uint8Array) => void;
  #packs = new Map<string, number>();
  #lines: string[] = [];
  #bytes = 0;

  constructor(emit: (chunk: Uint8Array) => void) {
    this.#emit = emit;
  }

  #line(build: () => object): void {
    if (this.#bytes > CHUNK_BYTES) this.flush();
    const before = this.#packs.size;
    const text = JSON.stringify(build());
    this.#lines.push(text);
    this.#bytes += Buffer.byteLength(text) + 1 + (this.#packs.size - before) * 67;
  }

  #pack(name: string): number {
    const known = this.#packs.get(name);
    if (known !== undefined) return known;
    this.#packs.set(name, this.#packs.size);
    return this.#packs.size - 1;
  }

  #flat(extents: readonly Extent[]): number[] {
    return extents.flatMap(({ length, pack, frame, offset }) => [
      length,
      pack === null ? -1 : this.#pack(pack),
      frame,
      offset,
    ]);
  }

  add(entry: ListedEntry): void {
    const { extents, ...meta } = entry;
    let batch: Extent[] = [];
    let first = true;
    const write = () => {
      const part = batch;
      batch = [];
      this.#line(() => {
        if (!first) return { more: true, x: this.#flat(part) };
        return part.length === 0 ? meta : { ...meta, x: this.#flat(part) };
      });
      first = false;
    };
    for (const extent of extents) {
      if (batch.length === EXTENTS_PER_LINE) write();
      batch.push(extent);
    }
    if (first || batch.length > 0) write();
  }

  flush(): void {
    if (this.#lines.length === 0) return;
    const head = JSON.stringify({ packs: [...this.#packs.keys()] });
    const chunk = Buffer.from(`${head}\n${this.#lines.join('\n')}\n`, 'utf8');
    if (chunk.length > FRAME_BYTES) throw new RangeError(`a listing chunk has ${chunk.length} bytes`);
    this.#packs = new Map();
    this.#lines = [];
    this.#bytes = 0;
    this.#emit(chunk);
  }
}

interface Line {
  readonly more?: true;
  readonly path: string;
  readonly type: EntryType;
  readonly mode: number;
  readonly size: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly target?: string;
  readonly extra?: JsonObject;
  readonly x?: readonly number[];
}

const TYPES = new Set<string>(['file', 'directory', 'symlink']);

/** A path that can be joined below any folder without leaving it. */
export function isSafePath(path: unknown): path is string {
  return (
    typeof path === 'string' &&
    path !== '' &&
    !path.includes('\0') &&
    path.split('/').every((segment) => segment !== '' && segment !== '.' && segment !== '..')
  );
}

function parseLine(text: string, what: string): Line {
  let line: Line;
  try {
    line = JSON.parse(text) as Line;
  } catch (cause) {
    throw damaged(what, 'a line of its listing is not JSON', cause);
  }
  if (typeof line !== 'object' || line === null) throw damaged(what, 'its listing has a malformed entry');
  if (line.x !== undefined && !Array.isArray(line.x))
    throw damaged(what, 'its listing has a malformed extent');
  if (line.more === true) return line;
  const sound =
    isSafePath(line.path) &&
    TYPES.has(line.type) &&
    Number.isSafeInteger(line.size) &&
    line.size >= 0 &&
    Number.isSafeInteger(line.mode) &&
    line.mode >= 0 &&
    (line.type !== 'symlink' || typeof line.target === 'string');
  if (!sound) throw damaged(what, 'its listing has a malformed entry');
  return line;
}

function parseExtents(flat: readonly number[], packs: readonly string[], what: string): Extent[] {
  const extents: Extent[] = [];
  for (let i = 0; i < flat.length; i += 4) {
    const [length, pack, frame, offset] = flat.slice(i, i + 4) as [number, number, number, number];
    const sound =
      [length, pack, frame, offset].every(Number.isSafeInteger) && length > 0 && frame >= 0 && offset >= 0;
    const name = pack === -1 ? null : packs[pack];
    if (!sound || name === undefined) throw damaged(what, 'its listing has a malformed extent');
    extents.push({ length, pack: name, frame, offset });
  }
  return extents;
}

/** Decodes chunks in order into entries; one entry is held at a time. */
export async function* readListing(chunks: AsyncIterable<Uint8Array>, what: string): AsyncIterable<Entry> {
  let open: (Omit<Line, 'x' | 'more'> & { extents: Extent[] }) | undefined;
  for await (const chunk of chunks) {
    const lines = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('utf8').split('\n');
    let packs: readonly string[] | undefined;
    try {
      packs = (JSON.parse(lines[0] ?? '') as { packs?: readonly string[] } | null)?.packs;
    } catch (cause) {
      throw damaged(what, 'a chunk of its listing has no head', cause);
    }
    if (!Array.isArray(packs) || !packs.every((name) => typeof name === 'string' && HEX64.test(name))) {
      throw damaged(what, 'a chunk of its listing has a malformed head');
    }
    for (const text of lines.slice(1)) {
      if (text === '') continue;
      const { x, more, ...meta } = parseLine(text, what);
      const extents = parseExtents(x ?? [], packs, what);
      if (more) {
        if (open === undefined) throw damaged(what, 'its listing continues no entry');
        open.extents.push(...extents);
      } else {
        if (open !== undefined) yield complete(open, what);
        open = { ...meta, extents };
      }
    }
  }
  if (open !== undefined) yield complete(open, what);
}

function complete(entry: Entry, what: string): Entry {
  const sum = entry.extents.reduce((total, extent) => total + extent.length, 0);
  if (entry.type === 'file' && sum !== entry.size)
    throw damaged(what, `its listing does not add up for ${entry.path}`);
  return entry;
}
