/**
 * Which stored parts make up one segment of one timeline, and what is missing of it. Pure.
 *
 * A timeline's segment begins, where it left its parent in the middle of one, with the parent's bytes.
 */
import type { Ancestor, LogPartHeader } from '../repository/contract.ts';

/** The bytes `[from, to)` of a part. Positions are the repository's strings. */
export interface CoverPiece {
  readonly part: LogPartHeader;
  readonly from: string;
  readonly to: string;
}

export interface SegmentCover {
  /** Everything that holds bytes of the segment, by `from`; overlapping pieces must agree. */
  readonly pieces: readonly CoverPiece[];
  /** Stretches that nothing holds. */
  readonly holes: readonly { readonly from: string; readonly to: string }[];
  /** Log of this history is stored behind the segment's end. */
  readonly later: boolean;
}

/** The longest list of ancestors that a header gives for the lineage; undefined where no header knows it. */
export function ancestorsOf(
  lineage: string,
  headers: readonly { readonly lineage: string; readonly ancestors: readonly Ancestor[] }[],
): readonly Ancestor[] | undefined {
  let found: readonly Ancestor[] | undefined;
  for (const header of headers) {
    const at = header.ancestors.findIndex((ancestor) => ancestor.lineage === lineage);
    const own =
      header.lineage === lineage ? header.ancestors : at < 0 ? undefined : header.ancestors.slice(0, at);
    if (own !== undefined && own.length >= (found?.length ?? 0)) found = own;
  }
  return found;
}

/** `from` and `to` are the segment's ends. */
export function coverSegment(
  lineage: string,
  ancestors: readonly Ancestor[],
  parts: readonly LogPartHeader[],
  from: string,
  to: string,
): SegmentCover {
  const pieces: CoverPiece[] = [];
  let later = false;
  for (const part of parts) {
    const range = rangeOf(part.lineage, lineage, ancestors);
    if (range === undefined || part.from >= part.to) continue;
    const start = max(part.from, range.from);
    const end = range.to !== null && range.to < part.to ? range.to : part.to;
    if (start >= end) continue;
    if (end > to) later = true;
    if (start < to && end > from) pieces.push({ part, from: max(start, from), to: end < to ? end : to });
  }
  pieces.sort((a, b) => (a.from === b.from ? (a.to > b.to ? -1 : 1) : a.from < b.from ? -1 : 1));
  return { pieces, holes: holesOf(pieces, from, to), later };
}

/** The bytes of `lineage`'s history that `part`'s lineage owns. */
function rangeOf(
  part: string,
  lineage: string,
  ancestors: readonly Ancestor[],
): { readonly from: string; readonly to: string | null } | undefined {
  if (part === lineage) return { from: ancestors.at(-1)?.position ?? '', to: null };
  const at = ancestors.findIndex((ancestor) => ancestor.lineage === part);
  if (at < 0) return undefined;
  return { from: ancestors[at - 1]?.position ?? '', to: ancestors[at]!.position };
}

function holesOf(pieces: readonly CoverPiece[], from: string, to: string) {
  const holes: { from: string; to: string }[] = [];
  let reached = from;
  for (const piece of pieces) {
    if (piece.from > reached) holes.push({ from: reached, to: piece.from });
    reached = max(reached, piece.to);
  }
  if (reached < to) holes.push({ from: reached, to });
  return holes;
}

function max(a: string, b: string): string {
  return a < b ? b : a;
}
