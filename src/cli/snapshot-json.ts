/** A snapshot's header as JSON documents show it. */
import type { SnapshotHeader } from '../operations/list.ts';
import { iso } from './text.ts';

export interface SnapshotJson {
  readonly id: string;
  readonly source: string;
  readonly kind: string;
  readonly writer: string;
  readonly lineage: string;
  readonly from: string;
  readonly to: string;
  readonly started: string;
  readonly finished: string;
  /** The source's clock at the consistent end. */
  readonly consistentAt: string;
  readonly bytes: number;
  readonly storedBytes: number;
  readonly files: number;
}

/** `format` writes positions as people do. */
export function snapshotJson(
  header: SnapshotHeader,
  format: (position: string) => string = (position) => position,
): SnapshotJson {
  const { id, source, kind, writer, lineage, bytes, storedBytes, files } = header;
  return {
    id,
    source,
    kind,
    writer,
    lineage,
    from: format(header.from),
    to: format(header.to),
    started: iso(header.started),
    finished: iso(header.finished),
    consistentAt: iso(header.sourceFinished),
    bytes,
    storedBytes,
    files,
  };
}
