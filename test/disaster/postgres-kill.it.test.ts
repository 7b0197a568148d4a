/** SIGKILL at random moments, under load: every promise holds, and the next run needs no repair. */
import { describe, expect, test } from 'vitest';
import { postgresBinaries, requireComponent } from '../../scripts/rig.ts';
import { killRound, victims } from '../oracle/kill-round.ts';
import { noFigures } from '../oracle/world.ts';

describe.skipIf(!(await requireComponent('postgres-15')))('SIGKILL under load', () => {
  test.each(victims)(
    'of the %s loses nothing',
    async (victim) => {
      const figures = noFigures();
      await killRound({
        binaries: await postgresBinaries(15),
        seed: 5,
        victim,
        times: 2,
        figures,
        say: () => undefined,
      });
      expect(figures).toMatchObject({ kills: 2, losses: 0 });
      expect(figures.rowsCompared).toBeGreaterThan(0);
    },
    400_000,
  );
});
