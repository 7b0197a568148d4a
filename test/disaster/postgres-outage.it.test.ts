/** A repository that is out of reach, a full disk, a server that was put back: said, bounded, nothing lost. */
import { describe, expect, test } from 'vitest';
import { postgresBinaries, requireComponent } from '../../scripts/rig.ts';
import {
  diskFull,
  putBack,
  repositoryAway,
  stopBoundMs,
  stopWhileOutOfReach,
} from '../oracle/outage-scenes.ts';
import { noFigures } from '../oracle/world.ts';

const mayMount = process.platform === 'linux' && process.getuid?.() === 0;

describe.skipIf(!(await requireComponent('postgres-15')))('outages', () => {
  const round = async () => ({
    ...{ binaries: await postgresBinaries(15), seed: 11, figures: noFigures(), say: () => undefined },
  });

  test('a fast shutdown does not wait for a repository that is out of reach', async () => {
    expect(await stopWhileOutOfReach(await round())).toBeLessThan(stopBoundMs);
  }, 300_000);

  test('a repository that is away for 20 seconds leaves no gap', async () => {
    await repositoryAway(await round(), 20_000);
  }, 300_000);

  test('a data directory put back to an older state is noticed', async () => {
    await putBack(await round());
  }, 300_000);

  // Only root can mount a small disk.
  test.skipIf(!mayMount)(
    'a full disk is said with a code, and everything goes on once there is room',
    async () => {
      await diskFull(await round());
    },
    300_000,
  );
});
