/**
 * What this host remembers of the files that it archived: which, with a keyed digest, and the beginning of the
 * record that goes over the end of a segment. Written after the repository holds the file, never flushed: what is
 * lost of it costs storing a file once more. What is unreadable counts as lost.
 *
 *   <state>/<repository id>/<source>/archive/files        one line of JSON for each file; files.old before it
 *   <state>/<repository id>/<source>/archive/source.json  the system identifier
 *   <state>/<repository id>/<source>/archive/carry/<segment>
 */
import { createCipheriv, createHmac } from 'node:crypto';
import { appendFile, mkdir, readdir, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { ArchiveMemory } from '../repository/log-archive.ts';
import type { Carry } from '../sources/archive.ts';

/** What tells that a file was not touched since, without reading it. */
export interface FileMark {
  readonly size: number;
  readonly inode: string;
  /** Nanoseconds. */
  readonly changed: string;
}

export interface ArchivedFile extends FileMark {
  readonly name: string;
  readonly digest: string;
  /** The last object that holds it. */
  readonly object: string;
}

/** Some 3,000 files; one older file is kept. */
const fileLimit = 1024 * 1024;
const carriesKept = 64;
const pieceBytes = 16 * 1024 * 1024;

export class ArchiveRecord {
  readonly #folder: string;
  readonly #key: Buffer;
  readonly #files = new Map<string, ArchivedFile>();
  #bytes = 0;

  private constructor({ directory, digestKey }: ArchiveMemory) {
    this.#folder = directory;
    this.#key = digestKey;
  }

  /** Throws `repository.state-unusable`. */
  static async open(memory: ArchiveMemory): Promise<ArchiveRecord> {
    const record = new ArchiveRecord(memory);
    try {
      await mkdir(join(memory.directory, 'carry'), { recursive: true, mode: 0o700 });
      await record.#read('files.old');
      record.#bytes = await record.#read('files');
    } catch (cause) {
      throw new HoldfastError(
        'repository.state-unusable',
        `The record of archived files in ${memory.directory} cannot be used.`,
        { cause },
      );
    }
    return record;
  }

  async #read(name: string): Promise<number> {
    const text = await readIfThere(join(this.#folder, name));
    for (const line of text?.toString('utf8').split('\n') ?? []) {
      const file = parseLine(line);
      if (file !== undefined) this.#files.set(file.name, file);
    }
    return text?.length ?? 0;
  }

  find(name: string): ArchivedFile | undefined {
    return this.#files.get(name);
  }

  /** Remembers a file that is durable in the repository, and what the next segment needs of it. */
  async add(file: ArchivedFile, carry: Carry | undefined): Promise<void> {
    if (carry !== undefined) await this.#keepCarry(file.name, carry);
    const line = `${JSON.stringify(file)}\n`;
    const path = join(this.#folder, 'files');
    if (this.#bytes > fileLimit) {
      await rename(path, `${path}.old`);
      this.#bytes = 0;
    }
    // A line of its own also behind one that was cut.
    await appendFile(path, `\n${line}`, { mode: 0o600 });
    this.#bytes += line.length;
    this.#files.set(file.name, file);
  }

  async #keepCarry(name: string, { from, bytes }: Carry): Promise<void> {
    const folder = join(this.#folder, 'carry');
    const head = Buffer.from(
      `${from.toString(16)} ${bytes === null ? 'none' : this.digest(name, [bytes])}\n`,
    );
    const path = join(folder, name);
    await writeFile(`${path}.tmp`, Buffer.concat([head, bytes ?? Buffer.alloc(0)]), { mode: 0o600 });
    await rename(`${path}.tmp`, path);
    const names = (await readdir(folder)).filter((one) => one.length === 24).sort(byPlace);
    for (const old of names.slice(0, -carriesKept)) await unlink(join(folder, old)).catch(ignoreMissing);
  }

  /** Undefined when it is not there or not what was written. */
  async carry(segment: string): Promise<Carry | undefined> {
    const content = await readIfThere(join(this.#folder, 'carry', segment));
    const end = content?.indexOf(10) ?? -1;
    if (content === undefined || end < 0) return undefined;
    const match = /^([0-9a-f]{1,16}) (none|[0-9a-f]{64})$/.exec(content.toString('latin1', 0, end));
    if (match === null) return undefined;
    const bytes = content.subarray(end + 1);
    const from = BigInt(`0x${match[1]}`);
    if (match[2] === 'none') return { from, bytes: null };
    return this.digest(segment, [bytes]) === match[2] ? { from, bytes } : undefined;
  }

  /** The system identifier of what was archived; undefined when nothing is remembered. */
  async systemId(): Promise<string | undefined> {
    const text = await readIfThere(join(this.#folder, 'source.json'));
    return /^\{"systemId":"(\d{1,20})"\}$/.exec(text?.toString('utf8') ?? '')?.[1];
  }

  async keepSystemId(systemId: string): Promise<void> {
    const path = join(this.#folder, 'source.json');
    await writeFile(`${path}.tmp`, JSON.stringify({ systemId }), { mode: 0o600 });
    await rename(`${path}.tmp`, path);
  }

  /**
   * Keyed digest of a file's content. GMAC over each piece (measured: 4 ms for 16 MiB, SHA-256 takes 15), one
   * HMAC over them: who lacks the key can neither tell guesses apart nor make two contents agree.
   */
  digest(name: string, content: readonly Uint8Array[]): string {
    const whole = createHmac('sha256', this.#key).update(`${name}\n`);
    for (const one of content) {
      for (let at = 0; at < one.length; at += pieceBytes) {
        const piece = one.subarray(at, at + pieceBytes);
        const mac = createCipheriv('aes-256-gcm', this.#key, Buffer.alloc(12));
        mac.setAAD(piece);
        mac.final();
        whole.update(`${piece.length}\n`).update(mac.getAuthTag());
      }
    }
    return whole.digest('hex');
  }
}

/** The file's mark. */
export async function markOf(path: string): Promise<FileMark> {
  const { size, ino, ctimeNs } = await stat(path, { bigint: true });
  return { size: Number(size), inode: String(ino), changed: String(ctimeNs) };
}

export function sameMark(a: FileMark, b: FileMark): boolean {
  return a.size === b.size && a.inode === b.inode && a.changed === b.changed;
}

function parseLine(line: string): ArchivedFile | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const file = JSON.parse(line) as Partial<ArchivedFile>;
    const texts = [file.name, file.digest, file.object, file.inode, file.changed];
    const sound = texts.every((text) => typeof text === 'string') && typeof file.size === 'number';
    return sound ? (file as ArchivedFile) : undefined;
  } catch {
    // Cut or overwritten by a loss of power: as good as forgotten.
    return undefined;
  }
}

/** By the place in the log, whatever the timeline. */
function byPlace(a: string, b: string): number {
  const [x, y] = [a.slice(8), b.slice(8)];
  return x < y ? -1 : x > y ? 1 : 0;
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function ignoreMissing(error: unknown): void {
  if (systemErrorCode(error) !== 'ENOENT') throw error;
}
