/** Feeds the log parts of a restore into the spool, opening the next ones while one is being written. */
import { HoldfastError } from '../../core/errors.ts';
import type { LogPartContent, LogPartHeader, RepositoryReader } from '../../repository/contract.ts';
import { lsnOf, parseLineage } from './position.ts';
import { openPartMeta } from './snapshot-meta.ts';
import type { WalSpool } from './wal-spool.ts';

/** Parts opened ahead: small ones cost a request each, and waiting for each in turn would be the restore's speed. */
const ahead = 4;

/** Appends all parts in order. Rejects with what the repository or the spool rejects with. */
export async function feedSpool(
  spool: WalSpool,
  parts: readonly LogPartHeader[],
  reader: RepositoryReader,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const opening: Promise<LogPartContent>[] = [];
  for (let i = 0; i < parts.length; i++) {
    while (opening.length < ahead && i + opening.length < parts.length) {
      const opened = reader.openPart(parts[i + opening.length]!, signal);
      // Its failure is met when its turn comes; until then it must not count as unhandled.
      opened.catch(() => undefined);
      opening.push(opened);
    }
    const part = await opening.shift()!;
    await feedPart(spool, part, signal, onBytes);
  }
}

async function feedPart(
  spool: WalSpool,
  part: LogPartContent,
  signal: AbortSignal,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { header } = part;
  const { timeline } = parseLineage(header.lineage);
  await spool.switchTo(timeline, switchPoint(header, spool.timeline));
  let at = lsnOf(header.from);
  for await (const chunk of part.data()) {
    signal.throwIfAborted();
    await spool.append(at, chunk);
    at += BigInt(chunk.length);
    onBytes(chunk.length);
  }
  if (at !== lsnOf(header.to)) {
    throw new HoldfastError(
      'repository.damaged',
      `The log part ${header.name} holds other positions than its header says.`,
      { details: { part: header.name } },
    );
  }
}

/** Where the part's timeline left the one before it. */
function switchPoint(header: LogPartHeader, timeline: number): bigint {
  const ancestor = header.ancestors.find(
    (candidate) => parseLineage(candidate.lineage).timeline === timeline,
  );
  return lsnOf(ancestor?.position ?? header.from);
}

/**
 * The histories that parts know. Those of the first and the last part of each timeline are enough: a capture
 * seals them with the first part of a stream, archiving with each part.
 */
export async function partHistories(
  parts: readonly LogPartHeader[],
  reader: RepositoryReader,
  signal: AbortSignal,
): Promise<{
  readonly histories: readonly Readonly<Record<string, string>>[];
  readonly recordEnd: string | null;
}> {
  const histories: Readonly<Record<string, string>>[] = [];
  let recordEnd: string | null = null;
  for (const [i, header] of parts.entries()) {
    const last = i === parts.length - 1;
    const begins = parts[i - 1]?.lineage !== header.lineage;
    const ends = parts[i + 1]?.lineage !== header.lineage;
    if (!begins && !ends) continue;
    const meta = openPartMeta((await reader.openPart(header, signal)).meta);
    histories.push(meta.histories);
    if (last) recordEnd = meta.recordEnd;
  }
  return { histories, recordEnd };
}
