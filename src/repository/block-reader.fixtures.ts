/** A reader module for tests: its "files" come with the job, and SHA-256 under the seed is its hash. */
import { createHash } from 'node:crypto';
import type { BlockReceiver, ReaderAnswer, ReaderJob } from './frame-worker.ts';

export interface FixtureJob extends ReaderJob {
  readonly content: Uint8Array;
  readonly known: Uint8Array | null;
  readonly knownBytes: number;
}

export interface FixtureAnswer {
  readonly hashes: Uint8Array;
  readonly runs: Int32Array;
}

const blockBytes = 8192;

export function createReader(_data: unknown, seed: Uint8Array) {
  return {
    read(job: ReaderJob, receiver: BlockReceiver): ReaderAnswer {
      const { content, known, knownBytes } = job as FixtureJob;
      const hashes: Buffer[] = [];
      const runs: number[] = [];
      for (let at = 0; at < content.length; at += blockBytes) {
        const block = content.subarray(at, at + blockBytes);
        const hash = createHash('sha256').update(seed).update(block).digest().subarray(0, 8);
        const i = hashes.push(hash) - 1;
        const before = known?.subarray(8 * i, 8 * i + 8);
        const same = before !== undefined && Buffer.compare(before, hash) === 0;
        if (same && Math.min(blockBytes, knownBytes - at) === block.length) continue;
        const { pack, frame, offset } = receiver.append(block);
        runs.push(i, 1, pack, frame, offset);
      }
      return {
        hashes: new Uint8Array(Buffer.concat(hashes)),
        runs: Int32Array.from(runs),
      } satisfies FixtureAnswer;
    },
  };
}
