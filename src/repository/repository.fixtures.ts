/** A small repository for tests: enough of everything that format 1 knows. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import type { RunContext } from '../core/context.ts';
import { silentLogger } from '../core/log.ts';
import { noProgress } from '../core/progress.ts';
import { MemoryStore } from '../storage/memory.ts';
import type { ObjectStore } from '../storage/store.ts';
import type { LogStretch, LogWriter, SnapshotFacts, SnapshotHeader } from './contract.ts';
import { LocalState, Repository } from './repository.ts';

export const PASSPHRASE = 'a phrase for tests only';
export const unlock = { passphrase: PASSPHRASE };

export function testContext(signal: AbortSignal = new AbortController().signal): RunContext {
  return { signal, progress: noProgress, clock: systemClock, log: silentLogger };
}

/** Reproducible bytes that do not compress. */
export function noise(length: number, seed = 'noise'): Buffer {
  const blocks: Buffer[] = [];
  for (let i = 0; i * 32 < length; i++) blocks.push(createHash('sha256').update(`${seed} ${i}`).digest());
  return Buffer.concat(blocks).subarray(0, length);
}

export const facts: SnapshotFacts = {
  lineage: '7:1',
  ancestors: [{ lineage: '7:0', position: '0000000000000010' }],
  from: '0000000000000100',
  to: '0000000000000200',
  sourceStarted: 1_700_000_000_000,
  sourceFinished: 1_700_000_001_000,
  meta: { version: 170002, note: 'sealed' },
  warnings: ['none really'],
};

export const at = (position: number): string => position.toString(16).toUpperCase().padStart(16, '0');

export function stretch(from: number, data: Uint8Array, lineage = '7:1'): LogStretch {
  const to = from + data.length;
  return {
    lineage,
    ancestors: [],
    from: at(from),
    to: at(to),
    data: [data.subarray(0, 7), data.subarray(7)],
    commits: [{ position: BigInt(from), time: 1_700_000_000_000_000n + BigInt(from), id: BigInt(from + 3) }],
    meta: { end: at(to) },
  };
}

export interface Fixture {
  readonly store: ObjectStore;
  readonly state: LocalState;
  readonly repository: Repository;
  readonly directory: string;
  cleanup(): Promise<void>;
}

export async function fixture(
  store: ObjectStore = new MemoryStore(),
): Promise<Fixture & { store: MemoryStore }> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-repository-'));
  const state = await LocalState.open(join(directory, 'state'));
  const { repository } = await Repository.create(
    store,
    state,
    { ...unlock, writerName: 'test' },
    testContext(),
  );
  const cleanup = async () => await rm(directory, { recursive: true, force: true });
  return { store: store as MemoryStore, state, repository, directory, cleanup };
}

/** Writes files (and holes, links, folders) as one snapshot. */
export async function writeSnapshot(
  repository: Repository,
  files: Readonly<Record<string, Uint8Array>>,
  source = 'db',
  context = testContext(),
): Promise<SnapshotHeader> {
  const writer = await repository.writer();
  const run = await writer.beginSnapshot({ source, kind: 'postgres' }, context);
  run.entry({ path: 'folder', type: 'directory', mode: 0o750 });
  run.entry({ path: 'link', type: 'symlink', mode: 0o777, target: 'folder' });
  const lane = run.lane();
  for (const [path, bytes] of Object.entries(files)) {
    lane.begin({ path, type: 'file', mode: 0o640 });
    await lane.write(bytes);
    lane.end();
  }
  return (await run.publish(facts)).header;
}

export async function openLog(
  repository: Repository,
  context = testContext(),
  source = 'db',
): Promise<LogWriter> {
  return await (await repository.writer()).openLog({ source, kind: 'postgres' }, context);
}

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}
