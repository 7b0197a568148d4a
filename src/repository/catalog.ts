/**
 * What a repository holds, read without any key: manifests and log parts with their signatures and chains.
 * Whatever does not check is left out and said as a problem, never silently.
 */
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { ObjectInfo, ObjectStore } from '../storage/store.ts';
import { damaged, Fields } from './codec.ts';
import type { LogPartHeader, SnapshotHeader } from './contract.ts';
import { inParallel } from './extract.ts';
import type { HeadCache } from './head-cache.ts';
import { type LogPartName, logPartHeader, parseLogPartName } from './log-part.ts';
import type { LoadedRoster } from './roster.ts';
import {
  checkSignature,
  decodeHead,
  HEAD_BYTES,
  headLength,
  type SignedHead,
  type SignedKind,
} from './signed-object.ts';
import { parseSnapshotName, snapshotHeader } from './snapshot.ts';

/** Heads read at once. */
const READS_AT_ONCE = 16;

export interface Problem {
  /** The object's name. */
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

/** Turns damage into a problem; anything else goes on up. */
export function problemOf(name: string, error: unknown): Problem {
  if (isHoldfastError(error, 'repository.damaged')) return { name, code: error.code, message: error.message };
  if (isHoldfastError(error, 'storage.not-found')) {
    return { name, code: 'repository.damaged', message: `${name} is missing.` };
  }
  // One object of a later format hides nothing of the others.
  if (isHoldfastError(error, 'repository.newer-format'))
    return { name, code: error.code, message: error.message };
  throw error;
}

export interface Catalog {
  readonly store: ObjectStore;
  readonly repository: string;
  readonly roster: LoadedRoster;
  /** Of this host, for listing snapshots only: a log part that is damaged must be found, to choose another. */
  readonly heads?: HeadCache;
}

/** Reads and checks the head of one signed object: format, repository, roster, signature, length. */
export async function readHead(
  catalog: Catalog,
  kind: SignedKind,
  info: ObjectInfo,
  source: string,
  signal: AbortSignal,
): Promise<SignedHead> {
  const { name } = info;
  let bytes = await catalog.store.get(name, { length: HEAD_BYTES, signal });
  if (bytes.length < 12) throw damaged(name, 'it is cut short');
  const needed = headLength(kind, bytes, name);
  if (needed > bytes.length) bytes = await catalog.store.get(name, { length: needed, signal });
  const head = decodeHead(kind, bytes, name);
  const fields = new Fields(head.header, name);
  if (fields.integer('format') > 1) {
    throw new HoldfastError('repository.newer-format', `${name} is of format ${fields.integer('format')}.`);
  }
  if (fields.string('repository') !== catalog.repository)
    throw damaged(name, 'it belongs to another repository');
  checkSignature(kind, head, catalog.roster.keyFor(fields.string('writer'), source, name), name);
  if (head.sectionStart + head.section.bytes !== info.bytes)
    throw damaged(name, 'its length is not the one that was signed');
  return head;
}

/** As `readHead`, but a head that this host has checked before is not read again. */
async function snapshotHead(
  catalog: Catalog,
  info: ObjectInfo,
  source: string,
  signal: AbortSignal,
): Promise<Pick<SignedHead, 'header'>> {
  const cached = catalog.heads?.get(info.name, info.bytes);
  if (cached !== undefined) {
    // The roster may have changed since then.
    catalog.roster.keyFor(new Fields(cached, info.name).string('writer'), source, info.name);
    return { header: cached };
  }
  const head = await readHead(catalog, 'snapshot', info, source, signal);
  catalog.heads?.add(info.name, info.bytes, head.header);
  return head;
}

/** Manifests of one source, or of all, oldest first ("latest" is the chain's head, not the latest clock). */
export async function readSnapshots(
  catalog: Catalog,
  source: string | null,
  problems: Problem[],
  signal: AbortSignal,
): Promise<SnapshotHeader[]> {
  const headers: SnapshotHeader[] = [];
  const prefix = source === null ? 'snapshots/' : `snapshots/${source}/`;
  await inParallel(catalog.store.list(prefix, { signal }), READS_AT_ONCE, async (info) => {
    const name = parseSnapshotName(info.name);
    if (name === undefined) return;
    try {
      const head = await snapshotHead(catalog, info, name.source, signal);
      headers.push(snapshotHeader(head, info.name, info.storedAt));
    } catch (error) {
      problems.push(problemOf(info.name, error));
    }
  });
  problems.push(...chainProblems(headers));
  return inChainOrder(headers);
}

/**
 * By the writers' clocks, but each after its predecessor: several may be made in one second, and clocks are set
 * back; the chain says which is the latest.
 */
function inChainOrder(headers: readonly SnapshotHeader[]): SnapshotHeader[] {
  const byDigest = new Map(headers.map((header) => [header.digest, header]));
  const ordered = new Set<SnapshotHeader>();
  for (const header of [...headers].sort((a, b) => a.finished - b.finished || (a.id < b.id ? -1 : 1))) {
    const missing: SnapshotHeader[] = [];
    let next: SnapshotHeader | undefined = header;
    while (next !== undefined && !ordered.has(next)) {
      missing.push(next);
      next = next.previous === null ? undefined : byDigest.get(next.previous);
    }
    for (const one of missing.reverse()) ordered.add(one);
  }
  return [...ordered];
}

/** A manifest whose predecessor is not there: something was taken away, or withheld. */
function chainProblems(headers: readonly SnapshotHeader[]): Problem[] {
  const known = new Set(headers.map((header) => header.digest));
  return headers
    .filter((header) => header.previous !== null && !known.has(header.previous))
    .map((header) => ({
      name: header.name,
      code: 'repository.chain-broken',
      message: `The snapshot before ${header.id} by the same writer is missing or damaged.`,
    }));
}

/** Names of all parts of a source, by stream. */
async function partNames(catalog: Catalog, source: string, signal: AbortSignal) {
  const streams = new Map<string, { name: LogPartName; info: ObjectInfo }[]>();
  for await (const info of catalog.store.list(`logs/${source}/`, { signal })) {
    const name = parseLogPartName(info.name);
    if (name === undefined) continue;
    const parts = streams.get(name.stream);
    if (parts === undefined) streams.set(name.stream, [{ name, info }]);
    else parts.push({ name, info });
  }
  return streams;
}

/** The fewest parts that cover the same stretch: at each position the part that reaches farthest. */
function cover<T extends { readonly name: LogPartName }>(parts: readonly T[]): T[] {
  const chosen: T[] = [];
  const sorted = [...parts].sort(({ name: a }, { name: b }) =>
    a.from !== b.from ? (a.from < b.from ? -1 : 1) : a.to < b.to ? 1 : -1,
  );
  for (const part of sorted) {
    const last = chosen.at(-1);
    if (last === undefined || part.name.to > last.name.to) chosen.push(part);
  }
  return chosen;
}

/** The covering parts of a source's log, in order of lineage and position. Reads only their heads. */
export async function readLogParts(
  catalog: Catalog,
  source: string,
  problems: Problem[],
  signal: AbortSignal,
): Promise<LogPartHeader[]> {
  const headers: LogPartHeader[] = [];
  for (const [, parts] of await partNames(catalog, source, signal)) {
    headers.push(...(await readStream(catalog, source, parts, problems, signal)));
  }
  const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return headers.sort(
    (a, b) => compare(a.lineage, b.lineage) || compare(a.from, b.from) || compare(a.stream, b.stream),
  );
}

async function readStream(
  catalog: Catalog,
  source: string,
  parts: readonly { name: LogPartName; info: ObjectInfo }[],
  problems: Problem[],
  signal: AbortSignal,
): Promise<LogPartHeader[]> {
  let usable = parts;
  for (;;) {
    const headers: LogPartHeader[] = [];
    const bad = new Set<string>();
    await inParallel(cover(usable), READS_AT_ONCE, async ({ name, info }) => {
      try {
        const head = await readHead(catalog, 'log-part', info, source, signal);
        headers.push(logPartHeader(head, name, info.bytes, info.storedAt));
      } catch (error) {
        problems.push(problemOf(info.name, error));
        bad.add(info.name);
      }
    });
    if (bad.size === 0) return checkStream(headers, problems);
    // The parts that a damaged merged one replaced may still be there: choose again without it.
    usable = usable.filter(({ info }) => !bad.has(info.name));
  }
}

/** Checks sequence and predecessor through one stream; a part that does not chain is a problem. */
function checkStream(headers: LogPartHeader[], problems: Problem[]): LogPartHeader[] {
  headers.sort((a, b) => a.sequence - b.sequence);
  let before: LogPartHeader | undefined;
  for (const header of headers) {
    const sequence = before === undefined ? 0 : (before.replaces?.last ?? before.sequence) + 1;
    const previous = before === undefined ? null : (before.replaces?.digest ?? before.digest);
    if (header.sequence !== sequence || header.previous !== previous) {
      problems.push({
        name: header.name,
        code: 'repository.chain-broken',
        message: `The part of the log before ${header.name} is missing or damaged.`,
      });
    }
    before = header;
  }
  return headers;
}

/** Every part of every stream, whether it is needed for a cover or not: for verification. */
export async function* allLogParts(
  catalog: Catalog,
  source: string,
  signal: AbortSignal,
): AsyncIterable<{ readonly name: LogPartName; readonly info: ObjectInfo }> {
  for await (const info of catalog.store.list(`logs/${source}/`, { signal })) {
    const name = parseLogPartName(info.name);
    if (name !== undefined) yield { name, info };
  }
}
