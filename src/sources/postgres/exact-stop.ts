/**
 * The exact record at which a replay ends. A plan names a place ("nothing that begins at or after it"), which may
 * lie inside a record or one byte behind the beginning of a commit that shall be in; PostgreSQL, told the place
 * where the first record begins that is left out, and found there afterwards, leaves no doubt.
 */
import { isHoldfastError } from '../../core/errors.ts';
import type { LogPartHeader, RepositoryReader } from '../../repository/contract.ts';
import { lsnOf, nextRecordStart } from './position.ts';
import { WalScanner } from './wal-records.ts';

/** Records end at multiples of eight: small enough steps to see where the one ends that goes over the place. */
const stepBytes = 8;

/**
 * Where the first record begins that begins at or after `before`; undefined where the parts do not tell: they
 * end before, or begin inside a record. Reads the part that holds the place, and more only where a record goes
 * over its end.
 */
export async function exactStop(
  before: bigint,
  parts: readonly LogPartHeader[],
  reader: RepositoryReader,
  segmentSize: number,
  signal: AbortSignal,
): Promise<bigint | undefined> {
  const holder = parts.findLastIndex(({ from, to }) => lsnOf(from) < before && before <= lsnOf(to));
  if (holder < 0) return undefined;
  const scanner = new WalScanner(lsnOf(parts[holder]!.from), { segmentSize });
  try {
    for (const part of parts.slice(holder)) {
      const covered = scanner.position - lsnOf(part.from);
      let skip = Number(covered);
      if (skip < 0 || part.lineage !== parts[holder]!.lineage) return undefined;
      for await (const chunk of (await reader.openPart(part, signal)).data()) {
        signal.throwIfAborted();
        const rest = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - rest.length;
        const found = advance(scanner, rest, before);
        if (found !== undefined) return nextRecordStart(found, segmentSize);
      }
    }
  } catch (error) {
    // The part begins inside a record that began before it: PostgreSQL still stops by the place as it was named.
    if (!isHoldfastError(error, 'postgres.wal-invalid')) throw error;
  }
  return undefined;
}

/** Up to the place at once, then step by step until no record is open; where that is, or undefined. */
function advance(scanner: WalScanner, bytes: Uint8Array, before: bigint): bigint | undefined {
  let at = 0;
  const room = before - scanner.position;
  if (room > 0n) {
    at = room < BigInt(bytes.length) ? Number(room) : bytes.length;
    scanner.push(bytes.subarray(0, at));
    scanner.takeCommits();
  }
  while (scanner.position >= before) {
    if (scanner.complete >= before) return scanner.complete;
    if (at >= bytes.length) return undefined;
    scanner.push(bytes.subarray(at, at + stepBytes));
    at += stepBytes;
  }
  return undefined;
}
