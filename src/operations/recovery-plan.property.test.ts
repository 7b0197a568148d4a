/**
 * Plans of random histories against a model that knows every commit: forks, gaps, overlapping parts, clocks that
 * step back. The model looks at single positions and commits, and shares no code with the planner.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HoldfastError } from '../core/errors.ts';
import type { Ancestor, Commit, SnapshotHeader } from '../repository/contract.ts';
import { type BuiltPart, commit, micros, part, position, snapshot, start } from './recovery-plan.fixtures.ts';
import { planRecovery, type RecoveryPlan } from './recovery-plan.ts';

interface Lineage {
  readonly name: string;
  /** `[lineage, first position that is not its own any more]`, oldest first. */
  readonly ancestors: readonly (readonly [string, number])[];
  readonly commits: readonly Commit[];
}

interface World {
  readonly lineages: readonly Lineage[];
  readonly snapshots: readonly SnapshotHeader[];
  readonly parts: readonly BuiltPart[];
  readonly time: bigint;
}

const end = 60;

/** The commits of the path that leads to `lineage`, in order. */
function pathCommits(world: Pick<World, 'lineages'>, lineage: Lineage): Commit[] {
  const kept: Commit[] = [];
  let from = 0;
  for (const [name, fork] of [...lineage.ancestors, [lineage.name, end] as const]) {
    const owner = world.lineages.find((one) => one.name === name)!;
    kept.push(...owner.commits.filter((one) => Number(one.position) >= from && Number(one.position) < fork));
    from = fork;
  }
  return kept;
}

/** Which lineage of the path owns the byte at `at`. */
function ownerOf(lineage: Lineage, at: number): string {
  return lineage.ancestors.find(([, fork]) => at < fork)?.[0] ?? lineage.name;
}

const worlds: fc.Arbitrary<World> = fc
  .record({
    forks: fc.array(fc.tuple(fc.nat(2), fc.integer({ min: 8, max: 45 })), { maxLength: 2 }),
    steps: fc.array(fc.integer({ min: -4, max: 6 }), { minLength: 3 * end, maxLength: 3 * end }),
    density: fc.constantFrom(2, 3, 7),
    stepping: fc.boolean(),
    cuts: fc.array(
      fc.record({
        lineage: fc.nat(2),
        from: fc.integer({ min: 0, max: end - 1 }),
        length: fc.integer({ min: 1, max: 30 }),
      }),
      { maxLength: 12 },
    ),
    snapshots: fc.array(
      fc.record({
        lineage: fc.nat(2),
        from: fc.integer({ min: 0, max: end - 1 }),
        length: fc.integer({ min: 0, max: 12 }),
      }),
      { minLength: 1, maxLength: 5 },
    ),
    target: fc.integer({ min: -2, max: 2 * end }),
    nudge: fc.constantFrom(-0.5, 0, 0.000001),
  })
  .map((draw) => {
    const lineages = drawLineages(draw);
    const place = (index: number, at: number) => {
      const lineage = lineages[index % lineages.length]!;
      const owner = lineages.find((one) => one.name === ownerOf(lineage, at))!;
      const ancestors: Ancestor[] = owner.ancestors.map(([name, fork]) => ({
        lineage: name,
        position: position(fork),
      }));
      return { owner, ancestors };
    };
    const parts = draw.cuts.map(({ lineage, from, length }) => {
      const { owner, ancestors } = place(lineage, from);
      return part(from, Math.min(end, from + length), owner.commits, { lineage: owner.name, ancestors });
    });
    const snapshots = draw.snapshots.map(({ lineage, from, length }, index) => {
      const { owner, ancestors } = place(lineage, from);
      const to = Math.min(end, from + length);
      const seen = (until: number) =>
        pathCommits({ lineages }, owner)
          .filter((one) => Number(one.position) < until)
          .map((one) => one.time)
          .sort((a, b) => (a < b ? -1 : 1))
          .at(-1);
      const seconds = (until: number) => Number(((seen(until) ?? micros(0)) + 999n) / 1000n) / 1000 - start;
      const id = `S${index}`;
      return snapshot(id, from, to, [seconds(from), seconds(to)], { lineage: owner.name, ancestors });
    });
    return { lineages, parts, snapshots, time: micros(draw.target + draw.nudge) };
  });

function drawLineages(draw: {
  readonly forks: readonly (readonly [number, number])[];
  readonly steps: readonly number[];
  readonly density: number;
  readonly stepping: boolean;
}): Lineage[] {
  const lineages: Lineage[] = [];
  const grow = (
    name: string,
    ancestors: Lineage['ancestors'],
    from: number,
    clock: number,
    offset: number,
  ) => {
    const commits: Commit[] = [];
    let now = clock;
    for (let at = from; at < end; at += 1) {
      const step = draw.steps[offset + at]!;
      now += draw.stepping ? step : Math.abs(step) / 2;
      if ((at + step + 8) % draw.density === 0) commits.push(commit(at, Math.max(0, now)));
    }
    lineages.push({ name, ancestors, commits });
  };
  grow('sys/1', [], 1, 0, 0);
  for (const [index, [parent, fork]] of draw.forks.entries()) {
    const from = lineages[parent % lineages.length]!;
    const inherited = from.ancestors.filter(([, until]) => until <= fork);
    const owner = ownerOf(from, fork - 1);
    const ancestors = [...inherited.filter(([name]) => name !== owner), [owner, fork] as const];
    const before = pathCommits(
      { lineages },
      { ...from, name: owner, ancestors: inherited.filter(([n]) => n !== owner) },
    );
    const last = before.filter((one) => Number(one.position) < fork).at(-1);
    const clock = last === undefined ? 0 : Number(last.time - micros(0)) / 1e6;
    // Sometimes the child lives while its parent does, sometimes after it.
    grow(`sys/${index + 2}`, ancestors, fork, clock + (draw.stepping ? 0 : 30 * index), end * (index + 1));
  }
  return lineages;
}

function planned(world: World): RecoveryPlan | HoldfastError {
  const commits = new Map(world.parts.map((one) => [one.header.name, one]));
  const planning = planRecovery({
    source: 'app',
    snapshots: world.snapshots,
    parts: world.parts.map((one) => one.header),
    target: { kind: 'time', time: world.time },
    lineage: null,
    formatPosition: (text) => text,
  });
  for (let step = planning.next(); ; step = planning.next(commits.get(step.value.name)!)) {
    if (step.done) return step.value;
  }
}

/** Every stop that the knowledge in the repository allows, one position and one commit at a time. */
function allowed(world: World): { readonly stops: Set<string>; readonly doubtful: boolean } {
  const stops = new Set<string>();
  let doubtful = false;
  for (const lineage of world.lineages) {
    for (const run of coveredRuns(world, lineage)) {
      const oldest = run.snapshots[0];
      if (oldest === undefined) continue;
      const known = pathCommits(world, lineage).filter(
        (one) => run.from <= Number(one.position) && Number(one.position) < run.to,
      );
      const since = BigInt(oldest.sourceFinished + 1) * 1000n;
      const consistent = Number.parseInt(oldest.to, 16);
      const later = known.filter((one) => Number(one.position) >= consistent);
      if (later.length === 0 || world.time < since || later.every((one) => one.time < world.time)) continue;
      const at = known.findIndex((one) => one.time > world.time);
      if (at === -1) {
        stops.add(`${ownerOf(lineage, run.to - 1)} end ${run.to}`);
        continue;
      }
      let highest = 0n;
      const stepped = known.slice(at).some((one) => {
        if (one.time > highest) highest = one.time;
        return one.time <= world.time && highest - one.time > 1_000_000n;
      });
      const stop = Number(known[at]!.position);
      if (stepped) doubtful = true;
      else if (stop >= consistent) stops.add(`${ownerOf(lineage, stop)} before ${stop}`);
    }
  }
  return { stops, doubtful };
}

function isOnPath(lineage: Lineage, { lineage: of, to }: SnapshotHeader): boolean {
  const fork = lineage.ancestors.find(([name]) => name === of)?.[1];
  return of === lineage.name || (fork !== undefined && Number.parseInt(to, 16) <= fork);
}

function coveredRuns(world: World, lineage: Lineage) {
  const covered = (at: number) =>
    world.parts.some(
      ({ header }) =>
        header.lineage === ownerOf(lineage, at) &&
        Number.parseInt(header.from, 16) <= at &&
        at < Number.parseInt(header.to, 16),
    );
  const mine = world.snapshots
    .filter((one) => isOnPath(lineage, one))
    .sort((a, b) => (a.to === b.to ? (a.id < b.id ? -1 : 1) : a.to < b.to ? -1 : 1));
  const runs: { from: number; to: number; snapshots: SnapshotHeader[] }[] = [];
  for (let at = 0; at < end; at += 1) {
    if (!covered(at)) continue;
    const last = runs.at(-1);
    if (last?.to === at) last.to = at + 1;
    else runs.push({ from: at, to: at + 1, snapshots: [] });
  }
  for (const run of runs) {
    run.snapshots = mine.filter(
      ({ to }) => run.from <= Number.parseInt(to, 16) && Number.parseInt(to, 16) <= run.to,
    );
  }
  return runs;
}

function checkPlan(world: World, plan: RecoveryPlan): void {
  const lineage = world.lineages.find((one) => one.name === plan.stop.lineage)!;
  const stop = Number.parseInt(plan.end, 16);
  const snapshotEnd = Number.parseInt(plan.snapshot.to, 16);
  const path = pathCommits(world, lineage);
  // The truth: everything before the first later commit, and nothing else.
  const kept = path.filter((one) => Number(one.position) < stop);
  expect(kept.every((one) => one.time <= world.time)).toBe(true);
  expect(plan.lastCommit?.position ?? kept.at(-1)?.position).toBe(kept.at(-1)?.position);
  if (plan.firstExcluded !== null) {
    expect(plan.firstExcluded.time).toBeGreaterThan(world.time);
    expect(path.find((one) => one.time > world.time)?.position).toBe(plan.firstExcluded.position);
  }
  // The snapshot is on the path, no later than the stop, and every byte from it to the stop is in a part.
  expect(snapshotEnd).toBeLessThanOrEqual(stop);
  expect(isOnPath(lineage, plan.snapshot)).toBe(true);
  // No newer one could have been taken: everything from its end to the stop would have to be covered, too.
  const newer = world.snapshots.filter(
    ({ to }) => Number.parseInt(to, 16) > snapshotEnd && Number.parseInt(to, 16) <= stop,
  );
  expect(newer.filter((one) => isOnPath(lineage, one))).toEqual([]);
  for (let at = snapshotEnd; at < stop; at += 1) {
    const inside = plan.parts.some(
      ({ lineage: of, from, to }) =>
        of === ownerOf(lineage, at) && Number.parseInt(from, 16) <= at && at < Number.parseInt(to, 16),
    );
    expect(inside, `position ${at}`).toBe(true);
  }
}

test('plans agree with a model that knows every commit', () => {
  const seen = { planned: 0, refused: new Map<string, number>() };
  fc.assert(
    fc.property(worlds, (world) => {
      const outcome = planned(world);
      const { stops, doubtful } = allowed(world);
      if (!(outcome instanceof HoldfastError)) {
        seen.planned += 1;
        const { before, lineage } = outcome.stop;
        const stop =
          before === null
            ? `${lineage} end ${Number.parseInt(outcome.end, 16)}`
            : `${lineage} before ${Number.parseInt(before, 16)}`;
        expect([...stops]).toContain(stop);
        expect(doubtful).toBe(false);
        checkPlan(world, outcome);
        return;
      }
      seen.refused.set(outcome.code, (seen.refused.get(outcome.code) ?? 0) + 1);
      if (outcome.code === 'recovery.outside-window') expect([stops.size, doubtful]).toEqual([0, false]);
      else if (outcome.code === 'recovery.ambiguous-time') expect(doubtful || stops.size > 1).toBe(true);
      else {
        expect(outcome.code).toBe('recovery.ambiguous-timeline');
        expect(stops.size > 0 && world.lineages.length > 1).toBe(true);
      }
    }),
    { numRuns: 4_000 },
  );
  // Worlds that never reach a branch would prove nothing about it.
  expect(seen.planned).toBeGreaterThan(100);
  expect([...seen.refused.keys()].sort()).toEqual([
    'recovery.ambiguous-time',
    'recovery.ambiguous-timeline',
    'recovery.outside-window',
  ]);
});
