/**
 * The commit index of a log part (docs/03-format.md §7): u32 count, then three columns (position, time, id),
 * each the first value and the differences as zigzag varints. About five bytes a commit.
 */
import { damaged } from './codec.ts';
import type { Commit } from './contract.ts';

const COLUMNS = ['position', 'time', 'id'] as const;

class VarintWriter {
  #bytes = new Uint8Array(1 << 12);
  #length = 0;

  write(value: bigint): void {
    if (this.#length + 10 > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    // Differences are small: the fast path stays in 31-bit integers.
    if (value > -0x3fff_ffffn && value < 0x3fff_ffffn) {
      let small = Number(value);
      small = (small << 1) ^ (small >> 31);
      while (small > 0x7f) {
        this.#bytes[this.#length++] = (small & 0x7f) | 0x80;
        small >>>= 7;
      }
      this.#bytes[this.#length++] = small;
      return;
    }
    let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    while (rest > 0x7fn) {
      this.#bytes[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#bytes[this.#length++] = Number(rest);
  }

  result(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}

export function encodeCommits(commits: readonly Commit[]): Uint8Array {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(commits.length);
  const writer = new VarintWriter();
  for (const column of COLUMNS) {
    let last = 0n;
    for (const commit of commits) {
      writer.write(commit[column] - last);
      last = commit[column];
    }
  }
  return Buffer.concat([count, writer.result()]);
}

export function decodeCommits(bytes: Uint8Array, what: string): Commit[] {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bad = () => damaged(what, 'its commit index is malformed');
  if (view.length < 4) throw bad();
  const count = view.readUInt32BE(0);
  // Three varints of at least a byte each: an absurd count is refused before memory is taken for it.
  if (count * 3 > view.length - 4) throw bad();
  let at = 4;
  const next = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = view[at++];
      if (byte === undefined) throw bad();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n));
    }
    throw bad();
  };
  const columns = COLUMNS.map(() => {
    let last = 0n;
    return Array.from({ length: count }, () => {
      last += next();
      return last;
    });
  });
  if (at !== view.length) throw bad();
  const [positions, times, ids] = columns as [bigint[], bigint[], bigint[]];
  return positions.map((position, i) => ({ position, time: times[i] as bigint, id: ids[i] as bigint }));
}
