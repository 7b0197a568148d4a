import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalStore } from './local.ts';
import { MemoryStore, seededFaults } from './memory.ts';
import { resilient } from './resilient.ts';
import { describeStore } from './store.suite.ts';
import { VirtualClock } from './virtual-clock.ts';

async function twoLocal() {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
  const handles = [await LocalStore.open(root), await LocalStore.open(root)] as const;
  return { handles, cleanup: () => rm(root, { recursive: true, maxRetries: 5 }) };
}

function twoMemory() {
  const first = new MemoryStore();
  return [first, new MemoryStore({ sharing: first })] as const;
}

const nothing = async () => undefined;

describeStore('a folder', twoLocal);
describeStore('a store in memory', async () => ({ handles: twoMemory(), cleanup: nothing }));
describeStore('a folder behind the wrapper', async () => {
  const { handles, cleanup } = await twoLocal();
  return { handles: [resilient(handles[0]), resilient(handles[1], { concurrency: 1 })], cleanup };
});

let seed = 1;
describeStore('a bad store behind the wrapper', async () => {
  const clock = new VirtualClock();
  // Without lost answers and late puts, which the suite's "exactly one created" cannot tell from a second writer.
  const rates = { fail: 0.15, hang: 0.05, tear: 0.1, delay: 0.1 };
  const first = new MemoryStore({ clock, faults: seededFaults(seed++, rates, 5_000) });
  const second = new MemoryStore({ clock, faults: seededFaults(seed++, rates, 5_000), sharing: first });
  const options = { clock, totalMs: Number.POSITIVE_INFINITY, attemptMs: 10_000 };
  return { handles: [resilient(first, options), resilient(second, options)], cleanup: nothing };
});
