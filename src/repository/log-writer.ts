/**
 * Appends to a source's log: each part is spooled durably, put, and only then acknowledged; after a kill the
 * spool is resent unchanged. Small parts are merged into large ones from memory: keeping their plaintext
 * on disk would leave readable log on a host that shall hold nothing readable.
 */
import { mkdir, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import type { ObjectStore } from '../storage/store.ts';
import { hex, sha256 } from './codec.ts';
import type { JsonObject, LogHead, LogStretch, LogWriter } from './contract.ts';
import { type LocalLock, type SourceState, writeDurably } from './local-state.ts';
import { LARGE_BYTES, LogMerge } from './log-merge.ts';
import {
  type EncodedPart,
  encodeSection,
  finishPart,
  type PartPlace,
  preparePart,
  type SectionInput,
} from './log-part.ts';
import type { LoadedRoster } from './roster.ts';
import { newRunId } from './run-id.ts';
import type { SigningKey } from './signing.ts';
import { workerUrl } from './worker-url.ts';

/** Below this a part is encoded on the spot: handing it to the worker costs more. */
const INLINE_BYTES = 256 << 10;

export interface LogWriterParts {
  /** One that waits while it is out of reach, until the signal of the call aborts. */
  readonly store: ObjectStore;
  readonly repository: string;
  readonly key: SigningKey;
  readonly roster: LoadedRoster;
  readonly state: SourceState;
  readonly source: string;
  readonly kind: string;
  readonly context: RunContext;
  readonly lock: LocalLock;
}

export class StoredLogWriter implements LogWriter {
  readonly #parts: LogWriterParts;
  #head: LogHead | undefined;
  #stream: string | undefined;
  #worker: Worker | undefined;
  #merging = new LogMerge();
  /** Where the stream before ended, when another was begun: below it there may be two pasts of one lineage. */
  #seam: { readonly lineage: string; readonly to: string } | undefined;
  /** The merge under way; never rejects. Until it settles its bytes are in use. */
  #mergeRun: Promise<void> = Promise.resolve();
  /** The last section handed to the worker: it takes one at a time. */
  #sealing: Promise<unknown> = Promise.resolve();
  #spooled = 0;
  /** Spooled, and perhaps stored: nothing may take its place in the stream before it is acknowledged. */
  #pending:
    | { readonly part: EncodedPart; readonly head: LogHead; readonly path: string; readonly from: string }
    | undefined;

  private constructor(parts: LogWriterParts) {
    this.#parts = parts;
  }

  /** Opens the log: what an earlier run spooled is resent first. Holds the given lock until `close`. */
  static async open(parts: LogWriterParts): Promise<StoredLogWriter> {
    const writer = new StoredLogWriter(parts);
    await mkdir(parts.state.spoolDirectory, { recursive: true, mode: 0o700 });
    const head = await parts.state.read('log-head');
    if (head?.writer === parts.key.id) writer.#head = head.head as unknown as LogHead;
    await writer.#resend();
    return writer;
  }

  get head(): LogHead | undefined {
    return this.#head;
  }

  resume(): void {
    if (this.#head === undefined) throw new Error('there is no stream to resume');
    this.#stream = this.#head.stream;
  }

  startStream(): void {
    this.#seam = this.#head ?? this.#seam;
    this.#stream = undefined;
    this.#merging = new LogMerge();
    this.#head = undefined;
  }

  async append(stretch: LogStretch, signal: AbortSignal): Promise<LogHead> {
    const resent = await this.#resendPending(stretch, signal);
    if (resent !== undefined) return resent;
    const continues = this.#stream !== undefined && this.#head !== undefined;
    if (continues && (this.#head?.to !== stretch.from || this.#head.lineage !== stretch.lineage)) {
      throw new Error(`a stream at ${this.#head?.to} cannot go on at ${stretch.from}`);
    }
    this.#stream ??= newRunId(this.#parts.context.clock.now());
    const place: PartPlace = {
      stream: this.#stream,
      sequence: continues ? (this.#head as LogHead).sequence + 1 : 0,
      previous: continues ? (this.#head as LogHead).digest : null,
      replaces: null,
    };
    const part = await this.#encode(stretch, place);
    const { lineage, to, meta } = stretch;
    const head: LogHead = {
      stream: place.stream,
      sequence: place.sequence,
      digest: part.digest,
      lineage,
      to,
      meta,
    };
    await this.#store(part, head, stretch.from, signal);
    await this.#remember(stretch, place, part.digest, signal);
    return head;
  }

  /** After a failed append: the same part goes again. Returns its head when `stretch` is what it holds. */
  async #resendPending(stretch: LogStretch, signal: AbortSignal): Promise<LogHead | undefined> {
    const pending = this.#pending;
    if (pending === undefined) return undefined;
    const { part, head, path, from } = pending;
    const stream = this.#stream;
    // Its plaintext is not at hand any more: what is merged must have no hole where it lies.
    this.#merging = new LogMerge();
    await this.#parts.store.put(part.name, part.content, { sha256: Buffer.from(part.digest, 'hex'), signal });
    await this.#acknowledge(head, path);
    this.#stream = stream;
    return stream === head.stream && from === stretch.from && head.to === stretch.to ? head : undefined;
  }

  async #encode(stretch: LogStretch, place: PartPlace): Promise<EncodedPart> {
    const { repository, source, kind, roster, key, context } = this.#parts;
    const options = { repository, source, kind, place, roster, writer: key.id, closed: context.clock.now() };
    const { header, section } = preparePart(options, stretch);
    const bytes = stretch.data.reduce((sum, piece) => sum + piece.length, 0);
    const sealed = bytes < INLINE_BYTES ? encodeSection(section) : [await this.#sealInTurn(section)];
    return finishPart(source, stretch, place, header, sealed, key);
  }

  async #sealInTurn(section: SectionInput): Promise<Uint8Array> {
    const sealed = this.#sealing.then(() => this.#encodeInWorker(section));
    this.#sealing = sealed.catch(() => undefined);
    return await sealed;
  }

  async #encodeInWorker(section: SectionInput): Promise<Uint8Array> {
    this.#worker ??= new Worker(workerUrl('part-worker'));
    const worker = this.#worker;
    return await new Promise<Uint8Array>((resolve, reject) => {
      const settle = () => {
        worker.off('message', done);
        worker.off('error', failed);
        worker.off('exit', gone);
      };
      const done = (bytes: Uint8Array) => {
        settle();
        resolve(bytes);
      };
      const failed = (error: Error) => {
        settle();
        this.#worker = undefined;
        reject(
          new HoldfastError(
            'system.internal',
            `A worker that seals the log ended by itself: ${error.message}.`,
            {
              cause: error,
            },
          ),
        );
      };
      const gone = () => failed(new Error('it ended'));
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', gone);
      worker.postMessage(section);
    });
  }

  async #store(part: EncodedPart, head: LogHead, from: string, signal: AbortSignal): Promise<void> {
    const { store, state } = this.#parts;
    const path = join(state.spoolDirectory, String(this.#spooled++).padStart(12, '0'));
    const record = Buffer.from(JSON.stringify({ name: part.name, digest: part.digest, head }), 'utf8');
    const length = Buffer.alloc(4);
    length.writeUInt32BE(record.length);
    await writeDurably(path, [length, record, ...part.content]);
    this.#pending = { part, head, path, from };
    await store.put(part.name, part.content, { sha256: Buffer.from(part.digest, 'hex'), signal });
    await this.#acknowledge(head, path);
  }

  async #acknowledge(head: LogHead, spooled: string): Promise<void> {
    const { state, key } = this.#parts;
    await state.write('log-head', { writer: key.id, head: head as unknown as JsonObject });
    this.#head = head;
    this.#pending = undefined;
    await unlink(spooled);
  }

  async #resend(): Promise<void> {
    const { store, state, context } = this.#parts;
    const names = (await readdir(state.spoolDirectory)).filter((name) => /^\d{12}$/.test(name)).sort();
    for (const name of names) {
      const path = join(state.spoolDirectory, name);
      const spooled = readSpooled(await readFile(path));
      if (spooled === undefined) {
        // It was never acknowledged, so that the source sends it again; the head is still the one before it.
        context.log.warn('a spooled part is unreadable and was put aside', { path });
        await rename(path, `${path}.unreadable`);
        continue;
      }
      const { record, content } = spooled;
      context.log.info('resending a part that was not acknowledged yet', { part: record.name });
      const sha256 = Buffer.from(record.digest, 'hex');
      await store.put(record.name, [content], { sha256, signal: context.signal });
      await this.#acknowledge(record.head, path);
    }
    this.#spooled = names.length === 0 ? 0 : Number(names.at(-1)) + 1;
  }

  async #remember(stretch: LogStretch, place: PartPlace, digest: string, signal: AbortSignal): Promise<void> {
    await this.#mergeRun;
    const bytes = stretch.data.reduce((sum, piece) => sum + piece.length, 0);
    const seam = this.#seam;
    // Lists compare two pasts by the times in headers: what lies below must not vanish in a larger part.
    const below = seam !== undefined && seam.lineage === stretch.lineage && stretch.to <= seam.to;
    const kept = below || bytes >= LARGE_BYTES;
    // The caller takes its buffers back when the append settles.
    if (!kept) this.#merging.add(stretch, place, digest);
    if (!kept && !this.#merging.due) return;
    // Beside the next appends: the parts are durable and acknowledged, and that they stay small for a while,
    // or for ever, is no reason to let the source wait or to call the append failed.
    this.#mergeRun = this.merge(signal, true).catch((error: unknown) => {
      if (signal.aborted) return;
      this.#parts.context.log.warn('small parts of the log could not be merged', { error });
    });
  }

  async merge(signal: AbortSignal, force = false): Promise<void> {
    await this.#mergeRun;
    if (!force && !this.#merging.due) return;
    const merged = this.#merging.take();
    if (merged === undefined) return;
    const part = await this.#encode(merged.stretch, merged.place);
    // Nothing waits for it and nothing depends on it: the parts that it replaces are durable.
    await this.#parts.store.put(part.name, part.content, { sha256: Buffer.from(part.digest, 'hex'), signal });
  }

  async close(): Promise<void> {
    await this.#mergeRun;
    await this.#worker?.terminate();
    this.#worker = undefined;
    await this.#parts.lock.release();
  }
}

interface SpoolRecord {
  readonly name: string;
  readonly digest: string;
  readonly head: LogHead;
}

/** What a spool file holds, or undefined when it is not what was written. */
function readSpooled(bytes: Buffer): { record: SpoolRecord; content: Uint8Array } | undefined {
  try {
    const end = 4 + bytes.readUInt32BE(0);
    const record = JSON.parse(bytes.toString('utf8', 4, end)) as SpoolRecord;
    const content = bytes.subarray(end);
    return hex(sha256(content)) === record.digest ? { record, content } : undefined;
  } catch {
    // Cut or overwritten: which of the two makes no difference.
    return undefined;
  }
}
