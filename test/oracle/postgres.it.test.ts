/** Twenty random targets and more: what a restore brings is compared with the order of the server's own log. */
import { describe, expect, test } from 'vitest';
import { postgresBinaries, requireComponent } from '../../scripts/rig.ts';
import { oracleRound } from './oracle-round.ts';
import { noFigures } from './world.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('random targets', () => {
  test('bring back exactly what was committed by then, on both timelines', async () => {
    const figures = noFigures();
    const round = { seed: 7, random: 2, secondTimeline: true, figures, say: () => undefined };
    await oracleRound({ ...round, binaries: await postgresBinaries(15) });
    // Refusing everything is no success: who refuses what the oracle expects to come back has failed above, and
    // only four targets must be refused; one at an edge may be.
    expect(figures.restores).toBeGreaterThanOrEqual(15);
    expect([4, 5]).toContain(figures.refusals);
    expect(figures.losses).toBe(0);
  }, 600_000);
});

describe.skipIf(!(await requireComponent('postgres-18')))('random targets, PostgreSQL 18', () => {
  test('bring back exactly what was committed by then', async () => {
    const figures = noFigures();
    const round = { seed: 18, random: 1, secondTimeline: false, figures, say: () => undefined };
    await oracleRound({ ...round, binaries: await postgresBinaries(18), few: true });
    expect([figures.restores, figures.refusals]).toEqual([3, 0]);
    expect(figures.losses).toBe(0);
  }, 600_000);
});
