/** Which bytes a ranged get means, the same for every implementation. */
import type { GetOptions } from './store.ts';

/**
 * The half-open range of an object of `size` bytes that `options` ask for, cut to what is there.
 * Throws RangeError for numbers that cannot be meant.
 */
export function resolveRange(size: number, options: GetOptions): { start: number; end: number } {
  const { offset = 0, length } = options;
  if (!Number.isSafeInteger(offset)) throw new RangeError(`offset ${offset} is not a whole number`);
  if (length !== undefined && !(Number.isSafeInteger(length) && length >= 0)) {
    throw new RangeError(`length ${length} is not a whole number from 0`);
  }
  const start = offset < 0 ? Math.max(0, size + offset) : Math.min(offset, size);
  return { start, end: length === undefined ? size : Math.min(size, start + length) };
}
