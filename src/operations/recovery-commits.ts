/**
 * Commits of stretches, looked up only where a part's header cannot answer. Pure: who plans reads nothing
 * itself, it asks by yielding the part whose commits it needs and is resumed with them.
 */
import type { Commit, LogPartHeader, Mark } from '../repository/contract.ts';
import { later, type Piece, type Stretch } from './recovery-history.ts';

/** What a part knows of its contents, in order of position. */
export interface PartIndex {
  readonly commits: readonly Commit[];
  readonly marks: readonly Mark[];
}

/** Yields a part; wants its index. */
export type Lookup<T> = Generator<LogPartHeader, T, PartIndex>;

/** Commit times of a piece, microseconds since 1970. */
export interface TimeRange {
  readonly min: bigint;
  readonly max: bigint;
}

/** The repository's string of a commit's position. Commits have numbers; their strings are 16 hexadecimal digits. */
export function commitPosition(commit: Pick<Commit, 'position'>): string {
  return commit.position.toString(16).toUpperCase().padStart(16, '0');
}

/** Asks for each part once. */
export class CommitIndex {
  readonly #known = new Map<string, PartIndex>();

  /** The commits that start in the piece. */
  *of(piece: Piece): Lookup<readonly Commit[]> {
    if (piece.part.times === null) return [];
    const { commits } = yield* this.#index(piece.part);
    if (piece.whole) return commits;
    return commits.filter((commit) => inside(piece, commitPosition(commit)));
  }

  /** The named places in the piece. */
  *marks(piece: Piece): Lookup<readonly Mark[]> {
    if ((piece.part.marks ?? 0) === 0) return [];
    const { marks } = yield* this.#index(piece.part);
    return marks.filter((mark) => inside(piece, commitPosition(mark)));
  }

  *#index(part: LogPartHeader): Lookup<PartIndex> {
    let index = this.#known.get(part.name);
    if (index === undefined) {
      index = yield part;
      this.#known.set(part.name, index);
    }
    return index;
  }

  /** Their times; null where there are none. The header answers for a whole part. */
  *times(piece: Piece): Lookup<TimeRange | null> {
    const times = piece.part.times;
    if (times === null) return null;
    if (piece.whole) return { min: BigInt(times.min), max: BigInt(times.max) };
    const commits = yield* this.of(piece);
    return rangeOf(commits);
  }

  /** The last commit of the stretch that starts before `position` (and not before `from`). */
  *lastBefore(stretch: Stretch, position: string, from = ''): Lookup<Commit | null> {
    for (let index = stretch.cover.length - 1; index >= 0; index -= 1) {
      const piece = trim(stretch.cover[index]!, from, position);
      if (piece === null) continue;
      const found = (yield* this.of(piece)).at(-1);
      if (found !== undefined) return found;
    }
    return null;
  }

  /** The first commit of the stretch that starts at or after `position`. */
  *firstFrom(stretch: Stretch, position: string): Lookup<Commit | null> {
    for (const covered of stretch.cover) {
      const piece = trim(covered, position, null);
      if (piece === null) continue;
      const found = (yield* this.of(piece))[0];
      if (found !== undefined) return found;
    }
    return null;
  }
}

/** The earliest and latest time among commits; null where there are none. */
export function rangeOf(commits: readonly Commit[]): TimeRange | null {
  const first = commits[0];
  if (first === undefined) return null;
  let [min, max] = [first.time, first.time];
  for (const { time } of commits) {
    if (time < min) min = time;
    if (time > max) max = time;
  }
  return { min, max };
}

/** The piece's share of `[from, to)`; null when it has none. */
export function trim(piece: Piece, from: string, to: string | null): Piece | null {
  const start = later(piece.from, from);
  const end = to !== null && to < piece.to ? to : piece.to;
  if (start >= end) return null;
  if (start === piece.from && end === piece.to) return piece;
  return { ...piece, from: start, to: end, whole: false };
}

function inside(piece: Piece, position: string): boolean {
  return piece.from <= position && position < piece.to;
}
