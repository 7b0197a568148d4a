/** The names that a store takes, and the shapes of prefixes, the same for every implementation. */
import { HoldfastError } from '../core/errors.ts';

const segmentShape = /^[A-Za-z0-9._-]+$/;
/** File systems take 255 bytes a segment; object stores 1024 in all. */
const maxSegment = 255;
const maxName = 1024;
/** A local store's working area; refused by every store so that a repository can move between them. */
export const reservedArea = 'tmp';

/** True for a single segment that may be part of a name. */
export function isSegment(segment: string): boolean {
  return segment.length <= maxSegment && segment !== '.' && segment !== '..' && segmentShape.test(segment);
}

/** True for a name that an object may have. */
export function isObjectName(name: string): boolean {
  if (name.length > maxName) return false;
  const segments = name.split('/');
  return segments[0] !== reservedArea && segments.every(isSegment);
}

/** Throws `storage.bad-name` unless `name` is one that an object may have. */
export function checkObjectName(name: string): void {
  if (isObjectName(name)) return;
  throw new HoldfastError(
    'storage.bad-name',
    `The name ${JSON.stringify(name.slice(0, 200))} is not one that a store may hold.`,
  );
}
