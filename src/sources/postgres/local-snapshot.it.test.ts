import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, one, Rescue } from './rescue.test-helper.ts';

let rescue: Rescue;
beforeAll(async () => {
  rescue = await Rescue.begin();
}, 60_000);
afterAll(() => rescue?.end());

describe('a local snapshot', () => {
  it('is restored and starts', async () => {
    await one(rescue.source.connection, "create table t as select i, md5(i::text) m from generate_series(1,100000) i; select count(*) from t").catch(() => undefined);
    await rescue.takeSnapshot();
    console.log(rescue.snapshot.header, rescue.snapshot.warnings);
    const restored = await rescue.restore('one', { before: null, lineage: rescue.snapshot.header.lineage, lastCommit: null, firstExcluded: null }, { parts: [] });
    console.log(await one(addressOf(restored), 'select count(*) from t'));
  }, 60_000);
});
