/** Backs up and appends for ever, and says on standard output what was acknowledged. Ended by SIGKILL only. */
import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { at, facts, noise, stretch, testContext, unlock } from '../../src/repository/repository.fixtures.ts';
import { LocalState, Repository } from '../../src/repository/repository.ts';
import { openStore } from '../../src/storage/open.ts';

const directory = process.argv[2] as string;
const context = testContext();
const store = await openStore(`${directory}/repository`, { create: true });
const state = await LocalState.open(`${directory}/state`);
const say = (what: object) => writeSync(1, `${JSON.stringify(what)}\n`);

const repository = await Repository.open(store, state, context).catch(async (error: { code?: string }) => {
  if (error.code !== 'repository.not-found') throw error;
  return (await Repository.create(store, state, { ...unlock, writerName: 'killed' }, context)).repository;
});
const writer = await repository.writer();

async function snapshots(): Promise<never> {
  for (;;) {
    const run = await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, context);
    const bytes = noise(200_000 + Math.floor(Math.random() * 3_000_000), String(Math.random()));
    const lane = run.lane();
    lane.begin({ path: 'data', type: 'file', mode: 0o600 });
    await lane.write(bytes);
    lane.end();
    const { header } = await run.publish(facts);
    say({ snapshot: header.name, sha256: createHash('sha256').update(bytes).digest('hex') });
  }
}

async function log(): Promise<never> {
  const log = await writer.openLog({ source: 'db', kind: 'postgres' }, context);
  let position = 0;
  if (log.head === undefined) log.startStream();
  else {
    log.resume();
    position = Number.parseInt(log.head.to, 16);
  }
  say({ resumed: at(position) });
  for (;;) {
    // What lies at a position is always the same, as it is in a real log.
    const length = 1000 + (position % 7) * 50_000;
    await log.append(stretch(position, noise(length, String(position))), context.signal);
    position += length;
    say({ to: at(position) });
    if (Math.random() < 0.1) await log.merge(context.signal, true);
  }
}

await Promise.all([snapshots(), log()]);
