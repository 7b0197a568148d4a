/**
 * A worker of extraction: opens one pack held in memory, authenticates and decompresses the frames asked
 * for, and writes their pieces to files. Nothing unauthenticated reaches a disk.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { isHoldfastError, systemErrorCode } from '../core/errors.ts';
import { type PackBinding, PackReader, type SealedBy } from './pack.ts';
import { decodeIdentity } from './recipient.ts';
import { release } from './release.ts';

export interface ExtractWorkerData {
  readonly identity: string;
  readonly sealedBy: SealedBy;
}

/** `length` bytes at `offset` of frame `frame` go to `position` of the file at `path`. */
export interface Piece {
  readonly frame: number;
  readonly offset: number;
  readonly length: number;
  readonly path: string;
  readonly position: number;
}

export interface ExtractJob {
  readonly pack: PackBinding;
  readonly bytes: Uint8Array;
  /** In order of frames. Empty: only open and authenticate every frame. */
  readonly pieces: readonly Piece[];
}

export type ExtractAnswer =
  | { readonly ok: true; readonly bytes: number }
  | {
      readonly ok: false;
      readonly code: string | undefined;
      readonly message: string;
      readonly object: string | undefined;
      readonly systemCode: string | undefined;
    };

const port = parentPort;
if (port === null) throw new Error('this module runs as a worker only');
const { identity: secret, sealedBy } = workerData as ExtractWorkerData;
const identity = decodeIdentity(secret);

/** Files stay open while pieces for the same file follow each other, which is nearly always. */
function writePieces(reader: PackReader, pieces: readonly Piece[]): number {
  let open: { path: string; fd: number } | undefined;
  let frame: { number: number; bytes: Buffer } | undefined;
  let written = 0;
  try {
    for (const piece of pieces) {
      if (frame?.number !== piece.frame) {
        if (frame !== undefined) release(frame.bytes);
        frame = undefined;
        frame = { number: piece.frame, bytes: reader.frameSync(piece.frame) };
      }
      if (piece.offset + piece.length > frame.bytes.length)
        throw new RangeError('a piece lies outside its frame');
      if (open?.path !== piece.path) {
        if (open !== undefined) closeSync(open.fd);
        open = undefined;
        open = { path: piece.path, fd: openSync(piece.path, 'r+') };
      }
      for (let done = 0; done < piece.length; ) {
        done += writeSync(
          open.fd,
          frame.bytes,
          piece.offset + done,
          piece.length - done,
          piece.position + done,
        );
      }
      written += piece.length;
    }
  } finally {
    if (open !== undefined) closeSync(open.fd);
    if (frame !== undefined) release(frame.bytes);
  }
  return written;
}

function authenticate(reader: PackReader): number {
  let bytes = 0;
  for (let number = 0; number < reader.frameCount; number++) {
    const frame = reader.frameSync(number);
    bytes += frame.length;
    release(frame);
  }
  return bytes;
}

port.on('message', (job: ExtractJob) => {
  let answer: ExtractAnswer;
  try {
    const reader = PackReader.fromBytes(job.bytes, job.pack, sealedBy, identity);
    const bytes = job.pieces.length > 0 ? writePieces(reader, job.pieces) : authenticate(reader);
    answer = { ok: true, bytes };
  } catch (error) {
    answer = {
      ok: false,
      code: isHoldfastError(error) ? error.code : undefined,
      message: error instanceof Error ? error.message : String(error),
      object: isHoldfastError(error) ? String(error.details.object ?? '') : undefined,
      systemCode: systemErrorCode(error),
    };
  }
  release(job.bytes);
  port.postMessage(answer);
});
