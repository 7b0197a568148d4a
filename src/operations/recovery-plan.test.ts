import { describe, expect, test } from 'vitest';
import { HoldfastError } from '../core/errors.ts';
import { formatInstant } from '../core/time.ts';
import type { SnapshotHeader } from '../repository/contract.ts';
import { type BuiltPart, commit, micros, part, position, snapshot } from './recovery-plan.fixtures.ts';
import { planRecovery, type RecoveryPlan } from './recovery-plan.ts';
import type { RecoveryTarget } from './recovery-request.ts';
import { recoveryRanges } from './recovery-windows.ts';

function plan(
  snapshots: readonly SnapshotHeader[],
  parts: readonly BuiltPart[],
  target: RecoveryTarget,
  lineage: string | null = null,
): RecoveryPlan | HoldfastError {
  const commits = new Map(parts.map((one) => [one.header.name, one]));
  const planning = planRecovery({
    source: 'app',
    snapshots,
    parts: parts.map((one) => one.header),
    target,
    lineage,
    formatPosition: (text) => `@${Number.parseInt(text, 16)}`,
  });
  for (let step = planning.next(); ; step = planning.next(commits.get(step.value.name)!)) {
    if (step.done) return step.value;
    // Whoever opens it compares its header with the stored one: a changed header is taken for damage.
    expect(step.value).toBe(commits.get(step.value.name)?.header);
  }
}

const at = (second: number): RecoveryTarget => ({ kind: 'time', time: micros(second) });
const lsn = (value: number): RecoveryTarget => ({ kind: 'position', position: position(value) });
const latest: RecoveryTarget = { kind: 'latest' };

/** `snapshot [parts] before STOP on LINEAGE`, or the code of the refusal. */
function brief(outcome: RecoveryPlan | HoldfastError): string {
  if (outcome instanceof HoldfastError) return outcome.code;
  const parts = outcome.parts.map((one) => `${Number.parseInt(one.from, 16)}-${Number.parseInt(one.to, 16)}`);
  const stop = outcome.stop.before === null ? 'end' : Number.parseInt(outcome.stop.before, 16);
  return `${outcome.snapshot.id} [${parts.join(' ')}] ${stop} ${outcome.stop.lineage}`;
}

// One timeline, commits every ten positions, one a second: position 100 at second 10, 110 at 11, …
const steady = Array.from({ length: 21 }, (_, index) => commit(100 + index * 10, 10 + index));
const simple = {
  snapshots: [snapshot('A', 90, 105, [9, 10.5]), snapshot('B', 190, 205, [19, 20.5])],
  parts: [part(80, 150, steady), part(150, 200, steady), part(200, 310, steady)],
};

describe('one history', () => {
  test.each([
    ['between two commits', at(15.5), 'A [80-150 150-200] 160 sys/1'],
    ['exactly a commit: it is kept', at(15), 'A [80-150 150-200] 160 sys/1'],
    ['a microsecond before a commit', at(14.999999), 'A [80-150 150-200] 150 sys/1'],
    ['the newest snapshot before it is taken', at(25.5), 'B [150-200 200-310] 260 sys/1'],
    ['the last commit', at(30), 'B [150-200 200-310] end sys/1'],
    ['after the last commit', at(30.000001), 'recovery.outside-window'],
    ['the earliest moment: the end of the first snapshot', at(10.501), 'A [80-150] 110 sys/1'],
    ['just before it', at(10.500999), 'recovery.outside-window'],
    ['before all', at(9), 'recovery.outside-window'],
    ['a position', lsn(163), 'A [80-150 150-200] 163 sys/1'],
    ['the position of a snapshot itself', lsn(205), 'B [] 205 sys/1'],
    ['the end of the log', lsn(310), 'B [150-200 200-310] 310 sys/1'],
    ['a position beyond the log', lsn(311), 'recovery.outside-window'],
    ['a position before the first snapshot', lsn(104), 'recovery.outside-window'],
    ['latest', latest, 'B [150-200 200-310] end sys/1'],
    ['a snapshot', { kind: 'snapshot', id: 'A' }, 'A [] end sys/1'],
    ['an unknown snapshot', { kind: 'snapshot', id: 'X' }, 'recovery.unknown-snapshot'],
  ] as const)('%s', (_, target, expected) => {
    expect(brief(plan(simple.snapshots, simple.parts, target))).toBe(expected);
  });

  test('names the commits on both sides of the stop', () => {
    const outcome = plan(simple.snapshots, simple.parts, at(20));
    expect(outcome).toMatchObject({
      lastCommit: { position: 200n },
      firstExcluded: { position: 210n },
      stop: { lastCommit: position(200), firstExcluded: position(210) },
      logBytes: 160,
    });
  });

  test('a snapshot by the beginning of its id', () => {
    const two = [snapshot('2026-a', 1, 2, [1, 1]), snapshot('2026-b', 3, 4, [2, 2])];
    expect(brief(plan(two, [], { kind: 'snapshot', id: '2026-a' }))).toBe('2026-a [] end sys/1');
    expect(plan(two, [], { kind: 'snapshot', id: '2026' })).toMatchObject({
      code: 'recovery.unknown-snapshot',
    });
  });

  test('a log that began after the snapshot had started counts from the end of the snapshot', () => {
    const parts = [part(100, 310, steady)];
    expect(brief(plan([simple.snapshots[0]!], parts, at(12.5)))).toBe('A [100-310] 130 sys/1');
    // Commits between the snapshot's start and the log's are unknown: only the source's clock tells.
    expect(brief(plan([simple.snapshots[0]!], parts, at(10.2)))).toBe('recovery.outside-window');
  });

  test('begins at one moment, which the list, the refusal and the plan agree on', () => {
    // With log that reaches back before the snapshot, and without.
    for (const parts of [simple.parts, [part(100, 310, steady)]]) {
      const first = recoveryRanges(
        simple.snapshots,
        parts.map(({ header }) => header),
      ).windows[0]!.fromTime!;
      const refused = plan(simple.snapshots, parts, { kind: 'time', time: first - 1n });
      expect(refused).toMatchObject({
        code: 'recovery.outside-window',
        details: { after: formatInstant(first) },
      });
      expect(brief(plan(simple.snapshots, parts, { kind: 'time', time: first }))).toMatch(/^A /);
    }
  });

  test('no snapshot, and no log', () => {
    expect(brief(plan([], simple.parts, latest))).toBe('recovery.nothing-to-restore');
    expect(brief(plan(simple.snapshots, [], latest))).toBe('B [] end sys/1');
    const refused = plan(simple.snapshots, [], at(20.6));
    expect(refused).toMatchObject({
      code: 'recovery.outside-window',
      next: expect.stringContaining('--snapshot B'),
    });
  });
});

describe('a gap', () => {
  const parts = [part(80, 150, steady), part(170, 310, steady)];
  const { snapshots } = simple;
  test.each([
    [at(14), 'A [80-150] end sys/1'],
    [at(15), 'recovery.outside-window'],
    [at(18), 'recovery.outside-window'],
    [at(21.5), 'B [170-310] 220 sys/1'],
    [lsn(150), 'A [80-150] 150 sys/1'],
    [lsn(160), 'recovery.outside-window'],
    [lsn(190), 'recovery.outside-window'],
    [lsn(206), 'B [170-310] 206 sys/1'],
    [latest, 'B [170-310] end sys/1'],
  ] as const)('%o', (target, expected) => {
    expect(brief(plan(snapshots, parts, target))).toBe(expected);
  });

  test('the nearest moments on both sides are named, and can be restored', () => {
    const refused = plan(snapshots, parts, at(18.25)) as HoldfastError;
    for (const edge of [refused.details.before, refused.details.after]) {
      const time = BigInt(Date.parse(String(edge))) * 1000n;
      expect(brief(plan(snapshots, parts, { kind: 'time', time }))).toMatch(/sys\/1$/);
      expect(refused.next).toContain(String(edge));
    }
  });

  test('log after a gap without a snapshot is told as a warning', () => {
    const outcome = plan([snapshots[0]!], parts, latest) as RecoveryPlan;
    expect(brief(outcome)).toBe('A [80-150] end sys/1');
    expect(outcome.warnings[0]).toContain('from @170 to @310');
  });
});

describe('coverage', () => {
  test('takes the fewest parts among merged and small ones', () => {
    const parts = [
      part(80, 90, steady),
      part(90, 200, steady),
      part(80, 260, steady),
      part(200, 310, steady),
    ];
    expect(brief(plan([simple.snapshots[0]!], parts, at(24.5)))).toBe('A [80-260] 250 sys/1');
    expect(brief(plan([simple.snapshots[0]!], parts, at(28.5)))).toBe('A [80-260 200-310] 290 sys/1');
  });

  test('takes the part that holds the first commit left out', () => {
    const parts = [part(80, 200, steady), part(200, 310, steady)];
    expect(brief(plan([simple.snapshots[0]!], parts, at(19.5)))).toBe('A [80-200 200-310] 200 sys/1');
  });
});

describe('a clock that was set back', () => {
  const times = [10, 11, 12, 13, 60, 61, 14, 15, 16, 62, 63];
  const commits = times.map((second, index) => commit(100 + index * 10, second));
  const parts = [part(80, 145, commits), part(145, 300, commits)];
  const snapshots = [snapshot('A', 80, 100, [8, 9])];
  test.each([
    [at(12.5), 'A [80-145] 130 sys/1'],
    [at(13.5), 'A [80-145] 140 sys/1'],
    [at(14), 'recovery.ambiguous-time'],
    [at(30), 'recovery.ambiguous-time'],
    [at(60.5), 'recovery.ambiguous-time'],
    [at(61), 'A [80-145 145-300] 190 sys/1'],
    [at(62.5), 'A [80-145 145-300] 200 sys/1'],
  ] as const)('%o', (target, expected) => {
    expect(brief(plan(snapshots, parts, target))).toBe(expected);
  });

  test('both places are named', () => {
    expect(plan(snapshots, parts, at(30))).toMatchObject({
      message: expect.stringContaining('before @140 and before @190'),
      details: { first: '@140', second: '@190' },
    });
  });

  test('a small step follows the order of the log', () => {
    const jitter = [commit(100, 10), commit(110, 11), commit(120, 10.9), commit(130, 12)];
    expect(brief(plan(snapshots, [part(80, 140, jitter)], at(10.95)))).toBe('A [80-140] 110 sys/1');
  });
});

describe('timelines', () => {
  // Timeline 1 commits to second 20 at 200. Timeline 2 leaves it at 155 (after the commit at 150) at second 30.
  const one = Array.from({ length: 11 }, (_, index) => commit(100 + index * 10, 10 + index));
  const two = [commit(160, 31), commit(170, 32), commit(180, 33)];
  const child = { lineage: 'sys/2', ancestors: [{ lineage: 'sys/1', position: position(155) }] };
  const snapshots = [snapshot('A', 80, 95, [8, 9])];
  const parts = [part(80, 210, one), part(150, 190, two, child)];
  test.each([
    ['on the parent before the fork', at(12.5), 'A [80-210] 130 sys/1'],
    ['on the parent after the fork', at(17.5), 'A [80-210] 180 sys/1'],
    ['on the parent, its last commit', at(20), 'A [80-210] end sys/1'],
    ['on the child', at(31.5), 'A [80-210 150-190] 170 sys/2'],
    ['on the child, its last commit', at(33), 'A [80-210 150-190] end sys/2'],
    ['after the parent was left, before the child wrote', at(25), 'recovery.ambiguous-timeline'],
    ['latest is the child', latest, 'A [80-210 150-190] end sys/2'],
    ['a position both have', lsn(170), 'recovery.ambiguous-timeline'],
    ['a position before the fork', lsn(150), 'A [80-210] 150 sys/1'],
  ] as const)('%s', (_, target, expected) => {
    expect(brief(plan(snapshots, parts, target))).toBe(expected);
  });

  test.each([
    [at(25), '2', 'A [80-210 150-190] 160 sys/2'],
    [at(25), 'sys/1', 'recovery.outside-window'],
    [lsn(170), '1', 'A [80-210] 170 sys/1'],
    [lsn(170), '2', 'A [80-210 150-190] 170 sys/2'],
    [latest, '1', 'A [80-210] end sys/1'],
    [latest, '7', 'recovery.unknown-timeline'],
  ] as const)('%o with --timeline %s', (target, lineage, expected) => {
    expect(brief(plan(snapshots, parts, target, lineage))).toBe(expected);
  });

  test('a failover that lost nothing has no doubtful moment', () => {
    const until = one.filter((c) => c.position < 155n);
    const clean = [part(80, 155, until), part(150, 190, two, child)];
    expect(brief(plan(snapshots, clean, at(25)))).toBe('A [80-155 150-190] 160 sys/2');
    expect(brief(plan(snapshots, clean, at(15.5)))).toBe('A [80-155 150-190] 160 sys/2');
  });

  test('a snapshot of the parent after the fork never leads to the child', () => {
    const late = [...snapshots, snapshot('L', 160, 175, [16, 17.2])];
    expect(brief(plan(late, parts, at(32.5)))).toBe('A [80-210 150-190] 180 sys/2');
    expect(brief(plan(late, parts, at(18.5)))).toBe('L [80-210] 190 sys/1');
  });

  test('two children of one parent hold the same moment', () => {
    const third = { lineage: 'sys/3', ancestors: child.ancestors };
    const both = [...parts, part(155, 190, [commit(165, 31), commit(185, 33)], third)];
    expect(brief(plan(snapshots, both, at(32)))).toBe('recovery.ambiguous-timeline');
    expect(brief(plan(snapshots, both, at(32), '3'))).toBe('A [80-210 155-190] 185 sys/3');
    expect(brief(plan(snapshots, both, at(17.5)))).toBe('A [80-210] 180 sys/1');
  });
});

describe('a server that was put back to an older state', () => {
  // Captured to position 200, second 20. Then put back to position 150; captured again from 140 on at second 40.
  const first = Array.from({ length: 11 }, (_, index) => commit(100 + index * 10, 10 + index));
  const second = [...first.slice(0, 5), commit(155, 42), commit(175, 43), commit(195, 44), commit(215, 45)];
  const old = { opened: 5 };
  const anew = { opened: 40 };
  const small = [part(80, 150, first, old), part(150, 205, first, old)];
  const again = [part(140, 160, second, anew), part(160, 220, second, anew)];
  const snapshots = [snapshot('A', 80, 95, [8, 9]), snapshot('B', 165, 170, [42.2, 42.5])];
  test.each([
    ['before it', at(17.5), 'A [80-150 150-205] 180 sys/1'],
    ['its last commit before', at(20), 'A [80-150 150-205] end sys/1'],
    ['between the two', at(30), 'recovery.outside-window'],
    ['after it, before the new snapshot', at(42.1), 'recovery.outside-window'],
    ['after it', at(43.5), 'B [160-220] 195 sys/1'],
    ['the newest', latest, 'B [160-220] end sys/1'],
    ['a position of the first', lsn(150), 'A [80-150 150-205] 150 sys/1'],
    ['a position of both', lsn(180), 'recovery.ambiguous-timeline'],
  ] as const)('%s', (_, target, expected) => {
    expect(brief(plan(snapshots, [...small, ...again], target))).toBe(expected);
  });

  test('is found by commits where large parts hide it from the headers', () => {
    const merged = [part(80, 205, first, old), part(140, 220, second, anew)];
    expect(brief(plan(snapshots, merged, at(43.5)))).toBe('B [140-220] 195 sys/1');
    expect(brief(plan([snapshots[0]!], merged, at(43.5)))).toBe('recovery.outside-window');
  });

  test('is not suspected where a capture without memory sends the same again', () => {
    const more = [...first, commit(215, 25), commit(225, 26)];
    const resent = [...small, part(140, 230, more, { opened: 22 })];
    expect(brief(plan([snapshots[0]!], resent, at(25.5)))).toBe('A [80-150 140-230] 225 sys/1');
    const hole = [
      part(80, 120, first, old),
      part(180, 205, first, old),
      part(110, 230, more, { opened: 22 }),
    ];
    expect(brief(plan([snapshots[0]!], hole, at(25.5)))).toBe('A [80-120 110-230] 225 sys/1');
  });

  test('a snapshot taken between the two belongs to no window, but can be restored itself', () => {
    const between = snapshot('M', 165, 170, [30, 31]);
    const all = [snapshots[0]!, between];
    expect(brief(plan(all, [...small, ...again], at(43.5)))).toBe('recovery.outside-window');
    expect(brief(plan(all, [...small, ...again], { kind: 'snapshot', id: 'M' }))).toBe('M [] end sys/1');
  });

  test('the windows of a list are two', () => {
    const parts = [...small, ...again].map(({ header }) => header);
    const { windows } = recoveryRanges(snapshots, parts);
    expect(windows.map(({ fromTime, toTime }) => [fromTime, toTime])).toEqual([
      [micros(9.001), micros(20)],
      [micros(42.501), micros(45)],
    ]);
  });
});
