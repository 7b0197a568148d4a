/** Verification at three depths: signatures and presence; digests of every byte; authenticated content. */
import { createHash } from 'node:crypto';
import type { RunContext } from '../core/context.ts';
import { inStep, type Step } from '../core/progress.ts';
import type { ObjectInfo } from '../storage/store.ts';
import {
  allLogParts,
  type Catalog,
  type Problem,
  problemOf,
  readHead,
  readLogParts,
  readSnapshots,
} from './catalog.ts';
import { damaged, Fields } from './codec.ts';
import type { SnapshotHeader } from './contract.ts';
import { inParallel } from './extract.ts';
import { keyProblems } from './keys.ts';
import { logPartHeader } from './log-part.ts';
import { type PackBinding, packName } from './pack.ts';
import { loadPacks } from './pack-list.ts';
import { decodeLists } from './snapshot.ts';
import type { StoredReader } from './snapshot-reader.ts';

export type VerifyDepth = 'signatures' | 'digests' | 'content';

export interface VerifyReport {
  readonly depth: VerifyDepth;
  /** Objects looked at, and bytes read of them. */
  readonly objects: number;
  readonly bytes: number;
  readonly snapshots: number;
  readonly logParts: number;
  readonly problems: readonly Problem[];
  readonly durationMs: number;
}

const CHUNK_BYTES = 4 << 20;
const OBJECTS_AT_ONCE = 4;
/** Areas whose objects are named by the SHA-256 of their content, which ends the name. */
const DIGEST_NAMED = /(?:^|[-/])([0-9a-f]{64})$/;

interface Tally {
  objects: number;
  bytes: number;
  snapshots: number;
  logParts: number;
  readonly problems: Problem[];
}

/** Verifies one source, or all. `reader` is needed for the depth `content` only. */
export async function verifyRepository(
  catalog: Catalog,
  sources: readonly string[],
  depth: VerifyDepth,
  reader: StoredReader | undefined,
  context: RunContext,
): Promise<VerifyReport> {
  const started = context.clock.monotonic();
  const tally: Tally = { objects: 0, bytes: 0, snapshots: 0, logParts: 0, problems: [] };
  tally.problems.push(...(await keyProblems(catalog.store, context.signal)));
  for (const source of sources) {
    await inStep(context.progress, `verify ${source}`, { unit: 'objects' }, async (step) => {
      await verifySource(catalog, source, depth, reader, context, tally, step);
    });
  }
  return {
    depth,
    objects: tally.objects,
    bytes: tally.bytes,
    snapshots: tally.snapshots,
    logParts: tally.logParts,
    problems: unique(tally.problems),
    durationMs: Math.round(context.clock.monotonic() - started),
  };
}

function unique(problems: readonly Problem[]): Problem[] {
  return [
    ...new Map(
      problems.map((problem) => [`${problem.name} ${problem.code} ${problem.message}`, problem]),
    ).values(),
  ];
}

async function verifySource(
  catalog: Catalog,
  source: string,
  depth: VerifyDepth,
  reader: StoredReader | undefined,
  context: RunContext,
  tally: Tally,
  step: Step,
): Promise<void> {
  const { signal } = context;
  const snapshots = await readSnapshots(catalog, source, tally.problems, signal);
  await readLogParts(catalog, source, tally.problems, signal);
  tally.snapshots += snapshots.length;
  const looked = (bytes: number) => {
    tally.objects++;
    tally.bytes += bytes;
    step.advance(1);
  };
  const packs = await packsOf(catalog, snapshots, tally, looked, signal);
  await checkPacks(catalog, packs, depth, tally, looked, signal);
  await inParallel(allLogParts(catalog, source, signal), OBJECTS_AT_ONCE, async ({ name, info }) => {
    tally.logParts++;
    await collect(tally, info.name, async () => {
      const head = await readHead(catalog, 'log-part', info, source, signal);
      if (depth !== 'signatures') await checkDigest(catalog, info, signal);
      if (depth === 'content' && reader !== undefined) {
        const part = await reader.openPart(logPartHeader(head, name, info.bytes, info.storedAt), signal);
        let bytes = 0;
        for await (const chunk of part.data()) bytes += chunk.length;
        if (bytes !== part.header.bytes)
          throw damaged(info.name, `it holds ${bytes} bytes of log instead of ${part.header.bytes}`);
      }
      looked(depth === 'signatures' ? 0 : info.bytes);
    });
  });
  if (depth === 'content' && reader !== undefined) {
    for (const header of snapshots) {
      await collect(tally, header.name, async () => {
        const snapshot = await reader.openSnapshot(header, signal);
        await reader.authenticate(snapshot, context, () => step.advance(1));
      });
    }
  }
}

async function collect(tally: Tally, name: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    tally.problems.push(problemOf(name, error));
  }
}

/** The packs that the snapshots name, by digest; manifests and lists are read and checked on the way. */
async function packsOf(
  catalog: Catalog,
  snapshots: readonly SnapshotHeader[],
  tally: Tally,
  looked: (bytes: number) => void,
  signal: AbortSignal,
): Promise<Map<string, PackBinding>> {
  const packs = new Map<string, PackBinding>();
  for (const header of snapshots) {
    await collect(tally, header.name, async () => {
      const info = await catalog.store.head(header.name, { signal });
      if (info === undefined) throw damaged(header.name, 'it is gone');
      const head = await readHead(catalog, 'snapshot', info, header.source, signal);
      await checkDigest(catalog, info, signal);
      looked(info.bytes);
      const lists = decodeLists(new Fields(head.header, header.name));
      for (const [digest, pack] of await loadPacks(catalog.store, lists, signal)) packs.set(digest, pack);
      for (const _ of lists) looked(0);
    });
  }
  return packs;
}

async function checkPacks(
  catalog: Catalog,
  packs: ReadonlyMap<string, PackBinding>,
  depth: VerifyDepth,
  tally: Tally,
  looked: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  await inParallel(packs.values(), OBJECTS_AT_ONCE, async (pack) => {
    const name = packName(pack.digest);
    await collect(tally, name, async () => {
      const info = await catalog.store.head(name, { signal });
      if (info === undefined) throw damaged(name, 'it is missing');
      if (info.bytes !== pack.bytes)
        throw damaged(name, `it has ${info.bytes} bytes instead of ${pack.bytes}`);
      if (depth !== 'signatures') await checkDigest(catalog, info, signal);
      looked(depth === 'signatures' ? 0 : info.bytes);
    });
  });
}

/** Reads an object whole, in chunks, and compares its SHA-256 with its name. */
async function checkDigest(catalog: Catalog, info: ObjectInfo, signal: AbortSignal): Promise<void> {
  const expected = DIGEST_NAMED.exec(info.name)?.[1];
  const hash = createHash('sha256');
  for (let offset = 0; offset < info.bytes; offset += CHUNK_BYTES) {
    hash.update(await catalog.store.get(info.name, { offset, length: CHUNK_BYTES, signal }));
  }
  if (hash.digest('hex') !== expected) throw damaged(info.name, 'its bytes do not match its name');
}
