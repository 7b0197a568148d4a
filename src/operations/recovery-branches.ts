/**
 * Branches of one lineage: a server that was put back to an older state goes on writing at positions that it had
 * used before, on the same timeline, with other contents. Pure.
 *
 * What tells them apart are the commits where two streams overlap: the same log, captured twice, holds the same
 * commits. A stream that disagrees is a branch of its own from its first byte on; nothing joins it with what was
 * captured before, and it needs a snapshot of its own. Which branch a snapshot belongs to is told by when it was
 * taken; one that was taken between the two may be of either, and belongs to no window.
 */
import type { Ancestor, LogPartHeader, SnapshotHeader } from '../repository/contract.ts';
import { commitPosition, type Lookup } from './recovery-commits.ts';
import { compare, later } from './recovery-history.ts';

/** Parts and snapshots whose lineages are branches now; `~` separates the name of the lineage from the branch's. */
export interface Branched {
  readonly snapshots: readonly SnapshotHeader[];
  readonly parts: readonly LogPartHeader[];
}

/** The name of the lineage that a branch is of. */
export function lineageOfBranch(branch: string): string {
  const at = branch.indexOf('~');
  return at === -1 ? branch : branch.slice(0, at);
}

/** One stream's parts of one lineage, by position. */
interface Strand {
  readonly lineage: string;
  readonly stream: string;
  /** When the stream was opened and its last part closed, by the writer's clock, milliseconds since 1970. */
  readonly opened: number;
  readonly closed: number;
  readonly parts: readonly LogPartHeader[];
}

/** A branch that began with the opening of a stream; `since` is when the one before it was last known to be written. */
interface Opening {
  readonly name: string;
  readonly since: number;
  readonly opened: number;
}

/** Decides whether `newer` holds the same log as `older` between `from` and `to`. */
type Agree = (older: readonly Strand[], newer: Strand, from: string, to: string) => Lookup<boolean>;

/** By commits: exact wherever any lie in the overlap. */
export function* branchesByCommits(request: Branched): Lookup<Branched> {
  return yield* branched(request, agreeByCommits);
}

/** By headers alone, for lists: finds a branch as soon as one part lies wholly within the overlap. */
export function branchesByHeaders(request: Branched): Branched {
  const deciding = branched(request, agreeByHeaders);
  const step = deciding.next();
  // Headers are at hand: nothing is ever asked for.
  if (!step.done) throw new Error('comparing headers needs no commits');
  return step.value;
}

function* branched({ snapshots, parts }: Branched, agree: Agree): Lookup<Branched> {
  const openings = new Map<string, readonly Opening[]>();
  const ofStream = new Map<string, string>();
  for (const [lineage, strands] of strandsOf(parts)) {
    const found = yield* openingsOf(lineage, strands, agree, ofStream);
    if (found.length > 0) openings.set(lineage, found);
  }
  if (openings.size === 0) return { snapshots, parts };
  const nameAt = (lineage: string, moment: number) => branchAt(openings.get(lineage) ?? [], lineage, moment);
  const ancestorsAt = (ancestors: readonly Ancestor[], moment: number) =>
    ancestors.map((ancestor) => ({
      ...ancestor,
      lineage: nameAt(ancestor.lineage, moment) ?? ancestor.lineage,
    }));
  return {
    parts: parts.map((part) => {
      const lineage = ofStream.get(strandKey(part)) ?? part.lineage;
      // A branch is joined to nothing: how far its past agrees with what was captured is not known.
      const ancestors = lineage === part.lineage ? ancestorsAt(part.ancestors, openedAt(part)) : [];
      return { ...part, lineage, ancestors };
    }),
    snapshots: snapshots.flatMap((snapshot) => {
      const lineage = nameAt(snapshot.lineage, snapshot.started);
      if (lineage === null) return [];
      const same = lineage === snapshot.lineage;
      return [
        { ...snapshot, lineage, ancestors: same ? ancestorsAt(snapshot.ancestors, snapshot.started) : [] },
      ];
    }),
  };
}

/** Null in the time between two branches. */
function branchAt(openings: readonly Opening[], lineage: string, moment: number): string | null {
  let name: string | null = lineage;
  for (const opening of openings) {
    if (moment >= opening.opened) name = opening.name;
    else if (moment > opening.since) name = null;
  }
  return name;
}

function* openingsOf(
  lineage: string,
  strands: readonly Strand[],
  agree: Agree,
  ofStream: Map<string, string>,
): Lookup<Opening[]> {
  const openings: Opening[] = [];
  let branch = lineage;
  let current: Strand[] = [];
  for (const strand of strands) {
    const from = strand.parts[0]!.from;
    const reached = current.flatMap(({ parts }) => parts.map(({ to }) => to)).reduce(later, '');
    const to = compare(reached, strand.parts.at(-1)!.to) < 0 ? reached : strand.parts.at(-1)!.to;
    if (from < to && !(yield* agree(current, strand, from, to))) {
      const since = current.reduce((latest, { closed }) => Math.max(latest, closed), 0);
      branch = `${lineage}~${strand.stream}`;
      openings.push({ name: branch, since, opened: strand.opened });
      current = [];
    }
    current.push(strand);
    if (branch !== lineage) ofStream.set(`${lineage} ${strand.stream}`, branch);
  }
  return openings;
}

function strandKey(part: LogPartHeader): string {
  return `${part.lineage} ${part.stream}`;
}

function strandsOf(parts: readonly LogPartHeader[]): Map<string, Strand[]> {
  const grouped = Map.groupBy(parts, strandKey);
  const strands = [...grouped.values()].map((own) => {
    const sorted = [...own].sort((a, b) => compare(a.from, b.from));
    const { lineage, stream } = sorted[0]!;
    const closed = sorted.reduce((latest, part) => Math.max(latest, part.closed), 0);
    return { lineage, stream, opened: openedAt(sorted[0]!), closed, parts: sorted };
  });
  strands.sort((a, b) => a.opened - b.opened || compare(a.stream, b.stream));
  return Map.groupBy(strands, ({ lineage }) => lineage);
}

/** Stream ids begin with the moment of their opening: `20261121T101530Z-…`. */
function openedAt(part: LogPartHeader): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-/.exec(part.stream);
  if (match === null) return part.closed;
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

function* agreeByCommits(older: readonly Strand[], newer: Strand, from: string, to: string): Lookup<boolean> {
  if (!(yield* agreeByHeaders(older, newer, from, to))) return false;
  const olderParts = older.flatMap(({ parts }) => parts);
  const before = yield* commitsWithin(olderParts, newer.parts, from, to);
  const after = yield* commitsWithin(newer.parts, olderParts, from, to);
  return before.size === after.size && [...before].every((commit) => after.has(commit));
}

/** The commits of `parts` in the range, where `others` hold log as well. */
function* commitsWithin(
  parts: readonly LogPartHeader[],
  others: readonly LogPartHeader[],
  from: string,
  to: string,
): Lookup<Set<string>> {
  const found = new Set<string>();
  for (const part of parts) {
    const shared = others.some((other) => other.from < part.to && part.from < other.to);
    if (part.times === null || part.to <= from || to <= part.from || !shared) continue;
    const { commits } = yield part;
    for (const commit of commits) {
      const position = commitPosition(commit);
      const inBoth = others.some((other) => other.from <= position && position < other.to);
      if (from <= position && position < to && inBoth) found.add(`${position} ${commit.time} ${commit.id}`);
    }
  }
  return found;
}

/** A part that lies within the other's log can hold no commit that is later than all of the other's, or earlier. */
function* agreeByHeaders(older: readonly Strand[], newer: Strand, from: string, to: string): Lookup<boolean> {
  const olderParts = older.flatMap(({ parts }) => parts);
  return fitsWithin(newer.parts, olderParts, from, to) && fitsWithin(olderParts, newer.parts, from, to);
}

function fitsWithin(
  parts: readonly LogPartHeader[],
  others: readonly LogPartHeader[],
  from: string,
  to: string,
): boolean {
  return parts.every((part) => {
    if (part.times === null || part.from < from || to < part.to || !isCovered(part, others)) return true;
    const holders = others.flatMap((other) =>
      other.times !== null && other.from < part.to && part.from < other.to ? [other.times] : [],
    );
    return (
      holders.some(({ min }) => BigInt(min) <= BigInt(part.times!.min)) &&
      holders.some(({ max }) => BigInt(max) >= BigInt(part.times!.max))
    );
  });
}

/** `others` are of several streams, each by position. */
function isCovered(part: LogPartHeader, others: readonly LogPartHeader[]): boolean {
  let reached = part.from;
  for (const other of [...others].sort((a, b) => compare(a.from, b.from))) {
    if (other.from <= reached) reached = later(reached, other.to);
  }
  return reached >= part.to;
}
