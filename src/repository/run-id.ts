/** Ids of snapshots and streams (docs/03-format.md §1). */
import { randomBytes } from 'node:crypto';
import { base32 } from './codec.ts';

/** `20261121T101530Z-<8 base32>`: sorts by time, unique by its random part. */
export function newRunId(now: number): string {
  const time = new Date(now).toISOString().replace(/[-:]|\.\d+/g, '');
  return `${time}-${base32(randomBytes(5))}`;
}
