/** The log file of a server of ours: its last words, and its lines as they come. */
import { open } from 'node:fs/promises';
import { systemErrorCode } from '../../core/errors.ts';

const tailBytes = 65_536;

/** The last lines of a log, oldest first; none when there is no file. */
export async function readTail(file: string, lines: number): Promise<string[]> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(file, 'r');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const buffer = Buffer.alloc(Math.min(size, tailBytes));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, size - buffer.length);
    return lastLines(buffer.subarray(0, bytesRead).toString('utf8'), lines);
  } finally {
    await handle.close();
  }
}

/** The last lines of a text that are not empty. */
export function lastLines(text: string, lines: number): string[] {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
    .slice(-lines);
}

/** Hands over the lines of a growing file. The server writes to a file, not to a pipe, so that it can outlive us. */
export class LogFollower {
  readonly #file: string;
  readonly #onLine: (line: string) => void;
  readonly #timer: NodeJS.Timeout;
  #offset = 0;
  #rest = '';
  #reading: Promise<void> = Promise.resolve();

  constructor(file: string, onLine: (line: string) => void) {
    this.#file = file;
    this.#onLine = onLine;
    this.#timer = setInterval(() => this.#poll(), 250);
    this.#timer.unref();
  }

  async end(): Promise<void> {
    clearInterval(this.#timer);
    await this.#poll();
    if (this.#rest !== '') this.#onLine(this.#rest);
  }

  #poll(): Promise<void> {
    this.#reading = this.#reading.then(() => this.#read());
    return this.#reading;
  }

  async #read(): Promise<void> {
    let handle: Awaited<ReturnType<typeof open>>;
    try {
      handle = await open(this.#file, 'r');
    } catch (error) {
      // Removed with the socket folder after the server's end: nothing more will come.
      if (systemErrorCode(error) === 'ENOENT') return;
      throw error;
    }
    try {
      const buffer = Buffer.alloc(tailBytes);
      for (;;) {
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, this.#offset);
        if (bytesRead === 0) return;
        this.#offset += bytesRead;
        const lines = (this.#rest + buffer.toString('utf8', 0, bytesRead)).split('\n');
        this.#rest = lines.pop()!;
        for (const line of lines) this.#onLine(line);
      }
    } finally {
      await handle.close();
    }
  }
}
