/**
 * Histories and stretches: the ground on which windows and plans stand. Pure.
 *
 * A history is one lineage with the ancestors it grew from: the path of log bytes that led to it. Of an
 * ancestor only the bytes up to its fork belong to the history; of a child only those after it. A stretch is a
 * piece of a history that the log parts cover without a gap, with the snapshots whose consistent end lies in it.
 */
import type { Ancestor, LogPartHeader, SnapshotHeader } from '../repository/contract.ts';

/** One lineage's share of a history: the bytes after `from` and up to `to` (null: open end). */
export interface Segment {
  readonly lineage: string;
  /** Smaller than every position where the history begins here. */
  readonly from: string;
  readonly to: string | null;
}

export interface History {
  /** The lineage whose history this is: the last segment's. */
  readonly lineage: string;
  /** Oldest first. */
  readonly segments: readonly Segment[];
}

/** A part's share of a stretch: the bytes `[from, to)` of its log. */
export interface Piece {
  readonly part: LogPartHeader;
  readonly lineage: string;
  readonly from: string;
  readonly to: string;
  /** True when the piece is the whole part, so that the part's header speaks for it. */
  readonly whole: boolean;
}

export interface Stretch {
  readonly history: History;
  readonly from: string;
  readonly to: string;
  /** Everything of the parts that lies on the history here, overlapping or not, by `from`. */
  readonly pieces: readonly Piece[];
  /** A choice of pieces that covers the stretch once, without overlap. */
  readonly cover: readonly Piece[];
  /** Those whose consistent end lies in it, by that end. */
  readonly snapshots: readonly SnapshotHeader[];
}

type Placed = { readonly lineage: string; readonly ancestors: readonly Ancestor[] };

/** Every lineage that a snapshot or part names, as a history; parents before children. */
export function histories(items: readonly Placed[]): History[] {
  const ancestry = new Map<string, readonly Ancestor[]>();
  for (const item of items) {
    const known = ancestry.get(item.lineage);
    if (known === undefined || known.length < item.ancestors.length)
      ancestry.set(item.lineage, item.ancestors);
  }
  return [...ancestry]
    .sort(([a, x], [b, y]) => x.length - y.length || compare(a, b))
    .map(([lineage, ancestors]) => ({ lineage, segments: segmentsOf(lineage, ancestors) }));
}

function segmentsOf(lineage: string, ancestors: readonly Ancestor[]): Segment[] {
  const segments: Segment[] = [];
  let from = '';
  for (const ancestor of ancestors) {
    segments.push({ lineage: ancestor.lineage, from, to: ancestor.position });
    from = ancestor.position;
  }
  segments.push({ lineage, from, to: null });
  return segments;
}

/** The lineages that no other one grew from. */
export function leaves(all: readonly History[]): History[] {
  const parents = new Set(all.flatMap((history) => history.segments.slice(0, -1).map((s) => s.lineage)));
  return all.filter((history) => !parents.has(history.lineage));
}

/** Where `lineage` was left on this history; null when it never was, undefined when it is not on it. */
export function forkOf(history: History, lineage: string): string | null | undefined {
  return history.segments.find((segment) => segment.lineage === lineage)?.to;
}

/** The lineage that the byte at `position` belongs to. */
export function ownerAt(history: History, position: string): string {
  const segment = history.segments.find((s) => s.to === null || position < s.to);
  return segment?.lineage ?? history.lineage;
}

/** The stretches of a history, by position. A snapshot outside of all log is a stretch of its own, without bytes. */
export function stretchesOf(
  history: History,
  snapshots: readonly SnapshotHeader[],
  parts: readonly LogPartHeader[],
): Stretch[] {
  const runs = contiguousRuns(piecesOn(history, parts));
  const inside = snapshots
    .filter((snapshot) => isOn(history, snapshot))
    .sort((a, b) => compare(a.to, b.to) || compare(a.id, b.id));
  const taken = new Set<SnapshotHeader>();
  const stretches: Stretch[] = runs.map(({ from, to, pieces }) => {
    const own = inside.filter((snapshot) => from <= snapshot.to && snapshot.to <= to);
    for (const snapshot of own) taken.add(snapshot);
    return { history, from, to, pieces, cover: coverOf(pieces, from, to), snapshots: own };
  });
  for (const snapshot of inside) {
    if (taken.has(snapshot)) continue;
    const bare = { history, from: snapshot.to, to: snapshot.to, pieces: [], cover: [] };
    stretches.push({ ...bare, snapshots: [snapshot] });
  }
  return stretches.sort((a, b) => compare(a.from, b.from) || compare(a.to, b.to));
}

function isOn(history: History, snapshot: SnapshotHeader): boolean {
  const segment = history.segments.find((candidate) => candidate.lineage === snapshot.lineage);
  return segment !== undefined && (segment.to === null || snapshot.to <= segment.to);
}

function piecesOn(history: History, parts: readonly LogPartHeader[]): Piece[] {
  const segments = new Map(history.segments.map((segment) => [segment.lineage, segment]));
  const pieces: Piece[] = [];
  for (const part of parts) {
    const segment = segments.get(part.lineage);
    if (segment === undefined) continue;
    const from = later(part.from, segment.from);
    const to = segment.to !== null && segment.to < part.to ? segment.to : part.to;
    if (from >= to) continue;
    const whole = from === part.from && to === part.to;
    pieces.push({ part, lineage: part.lineage, from, to, whole });
  }
  return pieces.sort((a, b) => compare(a.from, b.from) || compare(b.to, a.to));
}

interface Run {
  readonly from: string;
  to: string;
  readonly pieces: Piece[];
}

function contiguousRuns(pieces: readonly Piece[]): Run[] {
  const runs: Run[] = [];
  for (const piece of pieces) {
    const last = runs.at(-1);
    if (last === undefined || last.to < piece.from) {
      runs.push({ from: piece.from, to: piece.to, pieces: [piece] });
      continue;
    }
    last.pieces.push(piece);
    if (last.to < piece.to) last.to = piece.to;
  }
  return runs;
}

/**
 * The fewest pieces that cover `[from, to)` without a gap, trimmed so that they do not overlap.
 * `pieces` are sorted by `from` and contiguous over that range.
 */
export function coverOf(pieces: readonly Piece[], from: string, to: string): Piece[] {
  const cover: Piece[] = [];
  let cursor = from;
  let next = 0;
  while (cursor < to) {
    let best: Piece | undefined;
    for (; next < pieces.length && pieces[next]!.from <= cursor; next += 1) {
      const candidate = pieces[next]!;
      if (best === undefined || best.to < candidate.to) best = candidate;
    }
    if (best === undefined || best.to <= cursor) break;
    const whole = best.whole && best.from === cursor;
    cover.push({ ...best, from: cursor, whole });
    cursor = best.to;
  }
  return cover;
}

/** Positions compare as strings, by code unit. */
export function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** The later of two positions. */
export function later(a: string, b: string): string {
  return compare(a, b) < 0 ? b : a;
}
