/**
 * The recovery plan: which snapshot, which log parts, and where to stop, for one source and one target. Pure.
 *
 * A plan is a value: `restore --dry-run` prints it, `restore` executes it. What cannot be planned exactly is
 * refused with the nearest moments on both sides; never is a silently different moment planned.
 */
import { HoldfastError } from '../core/errors.ts';
import type { Commit, LogPartHeader, SnapshotHeader } from '../repository/contract.ts';
import type { StopAt } from '../sources/source.ts';
import { branchesByCommits, lineageOfBranch } from './recovery-branches.ts';
import { CommitIndex, commitPosition, type Lookup } from './recovery-commits.ts';
import {
  compare,
  coverOf,
  forkOf,
  type History,
  histories,
  later,
  leaves,
  ownerAt,
  type Stretch,
  stretchesOf,
} from './recovery-history.ts';
import { findPlaces, type NamedTarget } from './recovery-places.ts';
import { RecoveryRefusals } from './recovery-refusals.ts';
import type { RecoveryRequest, RecoveryTarget } from './recovery-request.ts';
import { locateTime, type TimeAnswer } from './recovery-time.ts';

export interface RecoveryPlan {
  readonly source: string;
  readonly target: RecoveryTarget;
  readonly snapshot: SnapshotHeader;
  /** In order, without a gap from the snapshot to the stop; empty for a bare snapshot. */
  readonly parts: readonly LogPartHeader[];
  readonly stop: StopAt;
  /** The end of the replayed log, exclusive. */
  readonly end: string;
  /** The last commit that will be there, where the log tells. Null also for a bare snapshot. */
  readonly lastCommit: Commit | null;
  /** The first commit that will not be there. */
  readonly firstExcluded: Commit | null;
  /** Plaintext bytes of log in the parts. */
  readonly logBytes: number;
  readonly warnings: readonly string[];
}

/** A resolved target on one stretch. */
interface Candidate {
  readonly stretch: Stretch;
  /** Lineage that was live there. */
  readonly lineage: string;
  /** Exclusive; null: the end of the stretch. */
  readonly before: string | null;
  readonly lastCommit: Commit | null;
  readonly firstExcluded: Commit | null;
}

/**
 * Plans a recovery. Yields each part whose commits it needs (usually one or two) and must be resumed with
 * them, in order of position. Returns the plan, or the refusal: `recovery.outside-window`,
 * `recovery.ambiguous-time`, `recovery.ambiguous-timeline`, `recovery.unknown-timeline`,
 * `recovery.unknown-snapshot`, `recovery.unknown-target`, `recovery.ambiguous-target`,
 * `recovery.nothing-to-restore`.
 */
export function* planRecovery(request: RecoveryRequest): Lookup<RecoveryPlan | HoldfastError> {
  if (request.target.kind === 'snapshot') return plan(request, planSnapshot(request, request.target.id));
  const branched = { ...request, ...(yield* branchesByCommits(request)) };
  const outcome = yield* askingForStored(request, planOnBranches(branched));
  return outcome instanceof HoldfastError ? outcome : plan(request, outcome);
}

/** A part whose lineage has a branch's name is not in the repository: it would be taken for a forged one. */
function* askingForStored<T>(request: RecoveryRequest, planning: Lookup<T>): Lookup<T> {
  const stored = new Map(request.parts.map((part) => [part.name, part]));
  let step = planning.next();
  while (!step.done) step = planning.next(yield stored.get(step.value.name) ?? step.value);
  return step.value;
}

/** Branches have names of our own; a plan speaks of what is stored. */
function plan(request: RecoveryRequest, planned: RecoveryPlan | HoldfastError): RecoveryPlan | HoldfastError {
  if (planned instanceof HoldfastError) return planned;
  const parts = new Map(request.parts.map((part) => [part.name, part]));
  return {
    ...planned,
    snapshot: request.snapshots.find(({ digest }) => digest === planned.snapshot.digest) ?? planned.snapshot,
    parts: planned.parts.map((part) => parts.get(part.name) ?? part),
    stop: { ...planned.stop, lineage: lineageOfBranch(planned.stop.lineage) },
  };
}

function* planOnBranches(request: RecoveryRequest): Lookup<RecoveryPlan | HoldfastError> {
  const commits = new CommitIndex();
  const refuse = new RecoveryRefusals(request, commits);
  if (request.snapshots.length === 0) return refuse.nothing();
  const all = histories([...request.snapshots, ...request.parts]);
  const chosen = request.lineage === null ? all : all.filter((h) => named(h.lineage, request.lineage!));
  if (chosen.length === 0) return refuse.unknownLineage(all);
  switch (request.target.kind) {
    case 'position':
      return yield* planPosition(request, chosen, request.target.position, commits, refuse);
    case 'time':
      return yield* planTime(request, chosen, request.target.time, commits, refuse);
    case 'transaction':
    case 'name':
      return yield* planNamed(request, chosen, request.target, commits, refuse);
    default:
      return yield* planLatest(request, chosen, commits, refuse);
  }
}

/** A timeline's number means all of its branches; a branch's own name only that one. */
function named(branch: string, name: string): boolean {
  const lineage = lineageOfBranch(branch);
  return branch === name || lineage === name || lineage.slice(lineage.lastIndexOf('/') + 1) === name;
}

// ---------------------------------------------------------------- snapshot

function planSnapshot(request: RecoveryRequest, id: string): RecoveryPlan | HoldfastError {
  const refuse = new RecoveryRefusals(request, new CommitIndex());
  if (request.snapshots.length === 0) return refuse.nothing();
  const wanted = id === 'latest' ? newestId(request.snapshots) : id;
  const exact = request.snapshots.filter((snapshot) => snapshot.id === wanted);
  const matching =
    exact.length > 0 ? exact : request.snapshots.filter((snapshot) => snapshot.id.startsWith(id));
  const snapshot = matching[0];
  if (snapshot === undefined || matching.length > 1) return refuse.unknownSnapshot(id, matching);
  return {
    source: request.source,
    target: request.target,
    snapshot,
    parts: [],
    stop: { before: null, lineage: snapshot.lineage, lastCommit: null, firstExcluded: null },
    end: snapshot.to,
    lastCommit: null,
    firstExcluded: null,
    logBytes: 0,
    warnings: [],
  };
}

/** Ids begin with the moment; the store's order decides between clocks only where these are equal. */
function newestId(snapshots: readonly SnapshotHeader[]): string {
  return [...snapshots].sort((a, b) => a.storedAt - b.storedAt || compare(a.id, b.id)).at(-1)!.id;
}

// ---------------------------------------------------------------- latest

function* planLatest(
  request: RecoveryRequest,
  chosen: readonly History[],
  commits: CommitIndex,
  refuse: RecoveryRefusals,
): Lookup<RecoveryPlan | HoldfastError> {
  const ends = leaves(chosen).sort((a, b) => lastStored(request, a) - lastStored(request, b));
  const history = ends.at(-1)!;
  const rivals = ends
    .slice(0, -1)
    .filter((other) => lastStored(request, other) >= firstStored(request, history));
  if (rivals.length > 0) return refuse.ambiguousLineage([...rivals, history].map((h) => h.lineage));
  const stretches = stretchesOf(history, request.snapshots, request.parts);
  const restorable = stretches.filter((stretch) => stretch.snapshots.length > 0);
  const stretch = restorable.sort((a, b) => compare(a.to, b.to)).at(-1);
  if (stretch === undefined) return refuse.nothing();
  const lastCommit = yield* commits.lastBefore(stretch, stretch.to);
  const beyond = stretches.filter((other) => other.to > stretch.to);
  const warnings = beyond.map(
    (other) =>
      `There is newer log, from ${request.formatPosition(other.from)} to ${request.formatPosition(other.to)}, but no snapshot leads to it: it comes after a gap.`,
  );
  const lineage = stretch.cover.at(-1)?.lineage ?? stretch.snapshots.at(-1)!.lineage;
  return build(request, { stretch, lineage, before: null, lastCommit, firstExcluded: null }, warnings);
}

/** The store's times of what lies on the history's own lineage. */
function storedTimes(request: RecoveryRequest, history: History): number[] {
  return [...request.snapshots, ...request.parts]
    .filter((item) => item.lineage === history.lineage)
    .map((item) => item.storedAt);
}

function lastStored(request: RecoveryRequest, history: History): number {
  return storedTimes(request, history).reduce((a, b) => Math.max(a, b), 0);
}

function firstStored(request: RecoveryRequest, history: History): number {
  return storedTimes(request, history).reduce((a, b) => Math.min(a, b), Number.MAX_SAFE_INTEGER);
}

// ---------------------------------------------------------------- position

function* planPosition(
  request: RecoveryRequest,
  chosen: readonly History[],
  position: string,
  commits: CommitIndex,
  refuse: RecoveryRefusals,
): Lookup<RecoveryPlan | HoldfastError> {
  const found = new Map<string, Candidate>();
  for (const stretch of restorableStretches(request, chosen)) {
    if (position < stretch.snapshots[0]!.to || stretch.to < position) continue;
    const lineage = ownerBefore(stretch.history, position);
    const lastCommit = yield* commits.lastBefore(stretch, position);
    const firstExcluded = yield* commits.firstFrom(stretch, position);
    const earlier = found.get(lineage);
    // Where histories share the place, the one that goes on knows the first commit left out.
    if (earlier === undefined || (earlier.firstExcluded === null && firstExcluded !== null))
      found.set(lineage, { stretch, lineage, before: position, lastCommit, firstExcluded });
  }
  const candidates = [...found.values()];
  if (candidates.length === 0) return refuse.positionOutside(position, restorableStretches(request, chosen));
  if (candidates.length > 1) return refuse.ambiguousLineage(candidates.map((candidate) => candidate.lineage));
  return build(request, candidates[0]!, []);
}

/** The lineage that the byte before `position` belongs to. */
function ownerBefore(history: History, position: string): string {
  const segment = history.segments.find((s) => s.to === null || position <= s.to);
  return segment?.lineage ?? history.lineage;
}

function restorableStretches(request: RecoveryRequest, chosen: readonly History[]): Stretch[] {
  return chosen
    .flatMap((history) => stretchesOf(history, request.snapshots, request.parts))
    .filter((stretch) => stretch.snapshots.length > 0);
}

// ---------------------------------------------------------------- named places

function* planNamed(
  request: RecoveryRequest,
  chosen: readonly History[],
  target: NamedTarget,
  commits: CommitIndex,
  refuse: RecoveryRefusals,
): Lookup<RecoveryPlan | HoldfastError> {
  const everything = chosen.flatMap((history) => stretchesOf(history, request.snapshots, request.parts));
  const found = yield* findPlaces(everything, target, commits);
  const restorable = found.filter(
    ({ stretch, stop }) => stretch.snapshots[0] !== undefined && stretch.snapshots[0].to <= stop,
  );
  const [place] = restorable;
  if (place === undefined)
    return found.length === 0 ? refuse.unknownTarget(target) : refuse.targetOutside(target, found);
  if (restorable.length > 1) return refuse.ambiguousTarget(target, restorable);
  const { stretch, lineage, stop } = place;
  const lastCommit = yield* commits.lastBefore(stretch, stop);
  const firstExcluded = yield* commits.firstFrom(stretch, stop);
  return build(request, { stretch, lineage, before: stop, lastCommit, firstExcluded }, []);
}

// ---------------------------------------------------------------- time

function* planTime(
  request: RecoveryRequest,
  chosen: readonly History[],
  time: bigint,
  commits: CommitIndex,
  refuse: RecoveryRefusals,
): Lookup<RecoveryPlan | HoldfastError> {
  const stretches = restorableStretches(request, chosen);
  const candidates: Candidate[] = [];
  let ambiguous: Extract<TimeAnswer, { kind: 'ambiguous' }> | undefined;
  for (const stretch of stretches) {
    const answer = yield* locateTime(stretch, time, commits);
    if (answer.kind === 'ambiguous') ambiguous ??= answer;
    if (answer.kind === 'at') candidates.push(candidateAt(stretch, answer.stop, answer.lastCommit));
  }
  if (ambiguous !== undefined) return refuse.ambiguousTime(time, ambiguous.first, ambiguous.second);
  const live = yield* liveOnes(distinct(candidates), commits);
  const [first, second] = live;
  if (first === undefined) return yield* refuse.timeOutside(time, stretches);
  if (second === undefined) {
    const rival = request.lineage === null ? yield* abandoned(request, first, commits) : undefined;
    return rival === undefined ? build(request, first, []) : refuse.ambiguousLineage([rival, first.lineage]);
  }
  if (first.stretch.history === second.stretch.history)
    return refuse.ambiguousTime(time, first.firstExcluded, second.firstExcluded);
  return refuse.ambiguousLineage(live.map((candidate) => candidate.lineage));
}

function candidateAt(stretch: Stretch, stop: Commit | null, lastCommit: Commit | null): Candidate {
  const { history } = stretch;
  if (stop === null) {
    const lineage = stretch.cover.at(-1)?.lineage ?? history.lineage;
    return { stretch, lineage, before: null, lastCommit, firstExcluded: null };
  }
  const before = commitPosition(stop);
  return { stretch, lineage: ownerAt(history, before), before, lastCommit, firstExcluded: stop };
}

/** Histories that share their beginning find the same place several times. */
function distinct(candidates: readonly Candidate[]): Candidate[] {
  const byPlace = new Map<string, Candidate>();
  for (const candidate of candidates) {
    const place = `${candidate.lineage} ${candidate.before ?? candidate.stretch.to}`;
    if (!byPlace.has(place)) byPlace.set(place, candidate);
  }
  return [...byPlace.values()];
}

/**
 * Drops a child's candidate where the child had not committed anything yet by T while its ancestor was still
 * being written: the ancestor was live then. Also drops it where both hold the same commits.
 */
function* liveOnes(candidates: readonly Candidate[], commits: CommitIndex): Lookup<Candidate[]> {
  const live: Candidate[] = [];
  for (const candidate of candidates) {
    const rivals = candidates.filter((other) => isAncestor(other, candidate));
    if (rivals.length === 0 || (yield* hasOwnCommit(candidate, commits))) live.push(candidate);
  }
  return live;
}

function isAncestor(other: Candidate, candidate: Candidate): boolean {
  if (other.lineage === candidate.lineage) return false;
  return forkOf(candidate.stretch.history, other.lineage) !== undefined;
}

/** Whether a commit that the candidate keeps was made on the candidate's own lineage. */
function* hasOwnCommit(candidate: Candidate, commits: CommitIndex): Lookup<boolean> {
  const { stretch } = candidate;
  const own = stretch.history.segments.find((segment) => segment.lineage === candidate.lineage);
  const last = candidate.lastCommit ?? (yield* commits.lastBefore(stretch, candidate.before ?? stretch.to));
  return last !== null && own !== undefined && commitPosition(last) >= own.from;
}

/**
 * T lies after the last commit of a history that was left, and before the first of the one that followed:
 * neither is known to have been live. Returns the one that was left, if it had commits of its own after the fork.
 */
function* abandoned(
  request: RecoveryRequest,
  candidate: Candidate,
  commits: CommitIndex,
): Lookup<string | undefined> {
  if (yield* hasOwnCommit(candidate, commits)) return undefined;
  const { lastCommit, stretch } = candidate;
  const since = lastCommit === null ? '' : commitPosition(lastCommit);
  const everything = histories([...request.snapshots, ...request.parts]);
  for (const { lineage, to: fork } of stretch.history.segments) {
    const left = everything.find((history) => history.lineage === lineage);
    if (left === undefined || fork === null || fork < since || lineage === candidate.lineage) continue;
    for (const tail of stretchesOf(left, [], request.parts)) {
      if ((yield* commits.firstFrom(tail, fork)) !== null) return lineage;
    }
  }
  return undefined;
}

// ---------------------------------------------------------------- building

function build(request: RecoveryRequest, candidate: Candidate, warnings: readonly string[]): RecoveryPlan {
  const { stretch, before, lineage, lastCommit, firstExcluded } = candidate;
  const end = before ?? stretch.to;
  const snapshot = stretch.snapshots.filter((one) => one.to <= end).at(-1)!;
  // Replay starts at the snapshot's own start where the log reaches back to it; the snapshot itself carries
  // what lies between, so a log that began later is enough.
  const start = later(stretch.from, snapshot.from);
  const bare = before === null ? snapshot.to >= end : snapshot.to === end;
  const pieces = bare ? [] : coverOf(stretch.pieces, start, reach(stretch, end, firstExcluded));
  return {
    source: request.source,
    target: request.target,
    snapshot,
    parts: pieces.map((piece) => piece.part),
    stop: {
      before,
      lineage,
      lastCommit: lastCommit === null ? null : commitPosition(lastCommit),
      firstExcluded: firstExcluded === null ? null : commitPosition(firstExcluded),
    },
    end,
    lastCommit,
    firstExcluded,
    logBytes: pieces.reduce((sum, piece) => sum + piece.part.bytes, 0),
    warnings,
  };
}

/**
 * How far parts are taken. A server that shall stop before a record must be able to read it: the piece that
 * holds the byte at the stop is taken too, where there is one.
 */
function reach(stretch: Stretch, end: string, firstExcluded: Commit | null): string {
  if (firstExcluded === null || commitPosition(firstExcluded) !== end) return end;
  const holder = stretch.cover.find((piece) => piece.from <= end && end < piece.to);
  return holder?.to ?? end;
}
