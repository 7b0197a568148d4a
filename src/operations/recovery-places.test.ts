import { describe, expect, test } from 'vitest';
import { HoldfastError } from '../core/errors.ts';
import { type BuiltPart, commit, mark, part, position, snapshot } from './recovery-plan.fixtures.ts';
import { planRecovery, type RecoveryPlan } from './recovery-plan.ts';
import type { RecoveryTarget } from './recovery-request.ts';

const snapshots = [snapshot('s1', 100, 120, [10, 12])];
const commits = [commit(110, 11), commit(200, 20), commit(300, 30), commit(400, 40)];
const marks = [
  mark('early', 115, 11),
  mark('release', 250, 25),
  mark('twice', 260, 26),
  mark('twice', 350, 35),
];
const parts = [part(100, 280, commits, { marks }), part(280, 500, commits, { marks })];

const named = (name: string): RecoveryTarget => ({ kind: 'name', name });
const transaction = (id: bigint, inclusive = true): RecoveryTarget => ({
  kind: 'transaction',
  id,
  inclusive,
});

function plan(
  target: RecoveryTarget,
  given: readonly BuiltPart[] = parts,
  lineage: string | null = null,
): { readonly outcome: RecoveryPlan | HoldfastError; readonly opened: string[] } {
  const opened: string[] = [];
  const planning = planRecovery({
    source: 'app',
    snapshots,
    parts: given.map(({ header }) => header),
    target,
    lineage,
    formatPosition: (text) => `@${Number.parseInt(text, 16)}`,
  });
  let step = planning.next();
  while (!step.done) {
    const { name } = step.value;
    opened.push(name);
    step = planning.next(given.find(({ header }) => header.name === name)!);
  }
  return { outcome: step.value, opened };
}

function planned(target: RecoveryTarget, given = parts, lineage: string | null = null): RecoveryPlan {
  const { outcome } = plan(target, given, lineage);
  if (outcome instanceof HoldfastError) throw outcome;
  return outcome;
}

function refused(target: RecoveryTarget, given = parts): HoldfastError {
  const { outcome } = plan(target, given);
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

describe('a transaction', () => {
  test('is kept: replay ends one byte behind the beginning of its commit', () => {
    const { stop } = planned(transaction(300n));
    expect(stop).toEqual({
      before: position(301),
      lineage: 'sys/1',
      lastCommit: position(300),
      firstExcluded: position(400),
    });
  });

  test('exclusively, replay ends before its commit', () => {
    const { stop } = planned(transaction(300n, false));
    expect(stop).toMatchObject({
      before: position(300),
      lastCommit: position(200),
      firstExcluded: position(300),
    });
  });

  test('that is the last one has nothing to leave out', () => {
    expect(planned(transaction(400n)).stop).toMatchObject({ before: position(401), firstExcluded: null });
  });

  test('without a commit in the log is unknown', () => {
    expect(refused(transaction(299n)).code).toBe('recovery.unknown-target');
  });

  test('committed before the first consistent moment lies in no window', () => {
    const error = refused(transaction(110n));
    expect(error.code).toBe('recovery.outside-window');
    expect(error.message).toContain('@110');
    expect(error.next).toContain('--lsn @120');
  });

  test('whose id came again on another timeline needs the timeline', () => {
    const ancestors = [{ lineage: 'sys/1', position: position(290) }];
    const again = { ...commit(320, 50), id: 300n };
    const child = part(290, 600, [again], { lineage: 'sys/2', ancestors });
    const error = refused(transaction(300n), [...parts, child]);
    expect(error.code).toBe('recovery.ambiguous-target');
    expect(error.message).toContain('@300 on timeline 1');
    expect(error.next).toContain('--timeline 2');
    expect(planned(transaction(300n), [...parts, child], '2').stop).toMatchObject({
      before: position(321),
      lineage: 'sys/2',
    });
    expect(planned(transaction(200n), [...parts, child]).stop).toMatchObject({ lineage: 'sys/1' });
  });
});

describe('a name', () => {
  test('is a position: what comes before its record is kept', () => {
    expect(planned(named('release')).stop).toEqual({
      before: position(250),
      lineage: 'sys/1',
      lastCommit: position(200),
      firstExcluded: position(300),
    });
  });

  test('is looked up only in parts that hold any', () => {
    const quiet = [parts[0]!, part(280, 500, commits)];
    const { opened } = plan(named('nothing'), quiet);
    expect(opened).toEqual([quiet[0]!.header.name]);
  });

  test('given twice is refused with both positions', () => {
    const error = refused(named('twice'));
    expect(error.code).toBe('recovery.ambiguous-target');
    expect(error.message).toContain('@260');
    expect(error.message).toContain('@350');
    expect(error.next).toContain('--lsn @350');
  });

  test('never given is unknown, too early lies in no window', () => {
    expect(refused(named('Release')).code).toBe('recovery.unknown-target');
    expect(refused(named('early')).code).toBe('recovery.outside-window');
  });
});

test('the newest snapshot is named latest', () => {
  expect(planned({ kind: 'snapshot', id: 'latest' }).snapshot.id).toBe('s1');
});
