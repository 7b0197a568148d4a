/** A backing-up process is killed at random moments: everything that it acknowledged is there, and nothing needs repair. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { LogPartHeader } from '../../src/repository/contract.ts';
import { collect, noise, testContext, unlock } from '../../src/repository/repository.fixtures.ts';
import { LocalState, Repository } from '../../src/repository/repository.ts';
import { openStore } from '../../src/storage/open.ts';

const ROUNDS = 15;
const context = testContext();
const { signal } = context;

interface Said {
  readonly snapshot?: string;
  readonly sha256?: string;
  readonly to?: string;
  readonly resumed?: string;
}

/** Runs the child and kills it `ms` after it began to work; gives what it said. */
async function killed(directory: string, ms: number): Promise<Said[]> {
  const child = spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      join(import.meta.dirname, 'repository-kill.child.ts'),
      directory,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let out = '';
  let errors = '';
  const ended = new Promise<string | null>((resolve) => child.once('close', (_, by) => resolve(by)));
  child.stderr.on('data', (bytes) => {
    errors += bytes;
  });
  const working = new Promise<void>((resolve) => {
    child.stdout.on('data', (bytes) => {
      out += bytes;
      resolve();
    });
  });
  await Promise.race([working, ended]);
  await Promise.race([new Promise((resolve) => setTimeout(resolve, ms)), ended]);
  child.kill('SIGKILL');
  const by = await ended;
  expect(by, errors).toBe('SIGKILL');
  // A line that was cut was not said.
  return out
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Said);
}

test('kills lose nothing that was acknowledged', { timeout: 240_000 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-kill-'));
  try {
    const snapshots = new Map<string, string>();
    let acknowledged = '';
    for (let round = 0; round < ROUNDS; round++) {
      const said = await killed(directory, Math.random() * 900);
      for (const { snapshot, sha256, to, resumed } of said) {
        if (snapshot !== undefined) snapshots.set(snapshot, sha256 as string);
        // At least: what was spooled but not yet said was resent.
        if (resumed !== undefined) expect(resumed >= acknowledged).toBe(true);
        if (to !== undefined) acknowledged = to;
      }
    }
    expect(acknowledged > '').toBe(true);
    expect(snapshots.size).toBeGreaterThan(0);

    const store = await openStore(`${directory}/repository`);
    const state = await LocalState.open(`${directory}/state`);
    const repository = await Repository.open(store, state, context);
    const log = await (await repository.writer()).openLog({ source: 'db', kind: 'postgres' }, context);
    expect((log.head?.to ?? '') >= acknowledged).toBe(true);
    await log.close();
    const report = await repository.verify({ depth: 'content', unlock }, context);
    expect(report.problems).toEqual([]);

    const reader = await repository.reader(unlock, context);
    const headers = await repository.snapshots('db', signal, []);
    for (const [name, sha256] of snapshots) {
      const header = headers.find((one) => one.name === name);
      expect(header, name).toBeDefined();
      const snapshot = await reader.openSnapshot(header as never, signal);
      const to = join(directory, 'out', header?.id as string);
      await reader.extract(snapshot, { place: (entry) => join(to, entry.path), sync: false }, context);
      expect(
        createHash('sha256')
          .update(await readFile(join(to, 'data')))
          .digest('hex'),
      ).toBe(sha256);
      await rm(to, { recursive: true });
    }

    // One stream without a hole, and at each position what always lies there.
    const parts = await repository.logParts('db', signal, []);
    expect(new Set(parts.map(({ stream }) => stream)).size).toBe(1);
    let position = 0;
    const pieces: Buffer[] = [];
    for (const part of parts as LogPartHeader[]) {
      expect(Number.parseInt(part.from, 16)).toBe(position);
      pieces.push(await collect((await reader.openPart(part, signal)).data()));
      position = Number.parseInt(part.to, 16);
    }
    const all = Buffer.concat(pieces);
    for (let from = 0; from < position; ) {
      const length = 1000 + (from % 7) * 50_000;
      expect(all.subarray(from, from + length).equals(noise(length, String(from)))).toBe(true);
      from += length;
    }
    await store.close();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
