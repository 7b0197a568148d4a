/** Single steps of the local store on files and folders, each free of knowledge about repositories. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

/** Linux takes at most 1024 buffers in one writev. */
const maxBuffers = 1024;
/** Bytes between two looks at the abort signal; larger batches were not faster. */
const batchBytes = 8 << 20;
const compareBytes = 1 << 20;

/** Makes the entries of a folder durable. */
export async function fsyncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes all of `content` in order at the file's start, in few calls however many buffers there are. */
export async function writeAll(
  handle: Pick<FileHandle, 'writev'>,
  content: readonly Uint8Array[],
  signal: AbortSignal | undefined,
): Promise<void> {
  let position = 0;
  for (const batch of batches(content)) {
    let rest = batch;
    while (rest.length > 0) {
      signal?.throwIfAborted();
      const { bytesWritten } = await handle.writev(rest, position);
      position += bytesWritten;
      rest = withoutFirst(rest, bytesWritten);
    }
  }
}

function* batches(content: readonly Uint8Array[]): Generator<Uint8Array[]> {
  let batch: Uint8Array[] = [];
  let bytes = 0;
  for (const whole of content) {
    for (let from = 0; from < whole.byteLength; from += batchBytes) {
      const piece = whole.byteLength <= batchBytes ? whole : whole.subarray(from, from + batchBytes);
      if (batch.length === maxBuffers || bytes + piece.byteLength > batchBytes) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push(piece);
      bytes += piece.byteLength;
    }
  }
  yield batch;
}

/** What is left of `buffers` after their first `bytes` bytes: a system may write less than it was given. */
function withoutFirst(buffers: Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  for (const [index, buffer] of buffers.entries()) {
    if (skip < buffer.byteLength) return [buffer.subarray(skip), ...buffers.slice(index + 1)];
    skip -= buffer.byteLength;
  }
  return [];
}

/** Reads `[start, end)`, or less where the file ends before. */
export async function readRange(
  handle: FileHandle,
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  // Not from Node's shared pool: callers transfer the result to workers.
  const buffer = Buffer.allocUnsafeSlow(end - start);
  let done = 0;
  while (done < buffer.length) {
    signal?.throwIfAborted();
    const wanted = Math.min(buffer.length - done, batchBytes);
    const { bytesRead } = await handle.read(buffer, done, wanted, start + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done === buffer.length ? buffer : buffer.subarray(0, done);
}

/** Whether the file holds exactly `content`. */
export async function holds(
  handle: FileHandle,
  content: readonly Uint8Array[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const expected = content.reduce((sum, piece) => sum + piece.byteLength, 0);
  if ((await handle.stat()).size !== expected) return false;
  const buffer = Buffer.allocUnsafeSlow(Math.min(compareBytes, Math.max(1, expected)));
  let position = 0;
  for (const whole of content) {
    for (let from = 0; from < whole.byteLength; ) {
      signal?.throwIfAborted();
      const wanted = Math.min(buffer.length, whole.byteLength - from);
      const { bytesRead } = await handle.read(buffer, 0, wanted, position);
      if (bytesRead === 0) return false;
      if (buffer.compare(whole, from, from + bytesRead, 0, bytesRead) !== 0) return false;
      from += bytesRead;
      position += bytesRead;
    }
  }
  return true;
}
