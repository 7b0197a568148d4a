/** Small parts on their way into one large one. Their bytes are kept in memory only: a host that backs up holds no readable log on disk. */
import type { Commit, JsonObject, LogStretch } from './contract.ts';
import type { PartPlace } from './log-part.ts';

/** Parts of at least this size stay as they are. */
export const LARGE_BYTES = 8 << 20;
/** Small parts are merged when they reach one of these. */
const MERGE_BYTES = 16 << 20;
const MERGE_PARTS = 600;

export interface MergedStretch {
  readonly stretch: LogStretch;
  readonly place: PartPlace;
}

/** Contiguous parts of one stream. */
export class LogMerge {
  // One buffer, shared with the worker that seals: dropping a copy a part would keep V8's collector busy
  // (measured: a sixth of capture's time). Its pages exist once they are written.
  readonly #buffer = Buffer.from(new SharedArrayBuffer(MERGE_BYTES + LARGE_BYTES));
  readonly #stretches: LogStretch[] = [];
  #first: PartPlace | undefined;
  #last: { readonly last: number; readonly digest: string } | undefined;
  #bytes = 0;

  /** True when it is time to merge. */
  get due(): boolean {
    return this.#bytes >= MERGE_BYTES || this.#stretches.length >= MERGE_PARTS;
  }

  /** Copies the part's bytes. It follows the one added before, and is smaller than LARGE_BYTES. */
  add(stretch: LogStretch, place: PartPlace, digest: string): void {
    const start = this.#bytes;
    for (const piece of stretch.data) {
      this.#buffer.set(piece, this.#bytes);
      this.#bytes += piece.length;
    }
    this.#stretches.push({ ...stretch, data: [this.#buffer.subarray(start, this.#bytes)] });
    this.#first ??= place;
    this.#last = { last: place.sequence, digest };
  }

  /** What was added as one part, and starts anew; undefined when merging would gain nothing. The bytes stay until the next `add`. */
  take(): MergedStretch | undefined {
    const stretches = this.#stretches.splice(0);
    const [first, last] = [this.#first, this.#last];
    this.#first = undefined;
    this.#last = undefined;
    this.#bytes = 0;
    if (first === undefined || last === undefined || stretches.length < 2) return undefined;
    return { stretch: joined(stretches), place: { ...first, replaces: last } };
  }
}

/** One stretch over contiguous ones; facts about its end are the last one's, histories are of all. */
function joined(stretches: readonly LogStretch[]): LogStretch {
  const first = stretches[0] as LogStretch;
  const last = stretches.at(-1) as LogStretch;
  const commits: Commit[] = stretches.flatMap((stretch) => stretch.commits);
  const marks = stretches.flatMap((stretch) => stretch.marks ?? []);
  const meta = Object.assign({}, ...stretches.map((stretch) => stretch.meta)) as JsonObject;
  return { ...first, to: last.to, data: stretches.flatMap((stretch) => stretch.data), commits, marks, meta };
}
