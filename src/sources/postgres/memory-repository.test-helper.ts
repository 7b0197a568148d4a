/** The repository's receiving ends, in memory: what a source hands over is kept as it came. */
import { createHash } from 'node:crypto';
import { systemClock } from '../../core/clock.ts';
import type { RunContext } from '../../core/context.ts';
import type { Logger } from '../../core/log.ts';
import { noProgress } from '../../core/progress.ts';
import type {
  Commit,
  EntryMeta,
  JsonObject,
  Lane,
  LogHead,
  LogStretch,
  LogWriter,
  Mark,
  SnapshotSink,
} from '../../repository/contract.ts';

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: unknown;
}

/** A context that keeps the log's lines. */
export function testContext(
  signal: AbortSignal = new AbortController().signal,
): RunContext & { readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at = (level: string) => (message: string, fields?: unknown) =>
    void lines.push({ level, message, fields });
  const log: Logger = {
    log: (level, message, fields) => at(level)(message, fields),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: () => log,
  };
  return { signal, progress: noProgress, clock: systemClock, log, lines };
}

export interface KeptEntry {
  readonly meta: EntryMeta;
  readonly content: Buffer;
}

/** Keeps a snapshot. `slow`: every n-th write makes the producer wait. */
export class MemorySink implements SnapshotSink {
  readonly entries = new Map<string, KeptEntry>();
  readonly #slow: number;
  /** Called with each write's size; may throw. */
  onWrite: (bytes: number) => void = () => undefined;

  constructor(slow = 0) {
    this.#slow = slow;
  }

  entry(meta: EntryMeta): void {
    this.#keep(meta, Buffer.alloc(0));
  }

  async blocks(): Promise<never> {
    throw new Error('this sink has no workers: block-wise snapshots are tested with the repository');
  }

  lane(): Lane {
    let open: { meta: EntryMeta; pieces: Buffer[] } | undefined;
    let waiting = false;
    let writes = 0;
    const opened = () => {
      if (open === undefined) throw new Error('no file is open');
      if (waiting) throw new Error('the lane asked to wait');
      return open;
    };
    return {
      begin: (meta) => {
        if (open !== undefined) throw new Error(`${open.meta.path} is still open`);
        open = { meta, pieces: [] };
      },
      write: (bytes) => {
        opened().pieces.push(Buffer.from(bytes));
        this.onWrite(bytes.length);
        writes += 1;
        if (this.#slow === 0 || writes % this.#slow !== 0) return undefined;
        waiting = true;
        return new Promise((resolve) =>
          setImmediate(() => {
            waiting = false;
            resolve();
          }),
        );
      },
      hole: (length) => void opened().pieces.push(Buffer.alloc(length)),
      end: () => {
        const { meta, pieces } = opened();
        open = undefined;
        this.#keep(meta, Buffer.concat(pieces));
      },
    };
  }

  #keep(meta: EntryMeta, content: Buffer): void {
    if (this.entries.has(meta.path)) throw new Error(`${meta.path} comes twice`);
    const parent = meta.path.split('/').slice(0, -1).join('/');
    if (parent !== '' && !meta.path.startsWith('holdfast/') && !this.entries.has(parent)) {
      throw new Error(`${meta.path} comes before its folder`);
    }
    this.entries.set(meta.path, { meta, content });
  }
}

export interface KeptPart {
  readonly stream: number;
  readonly lineage: string;
  readonly ancestors: LogStretch['ancestors'];
  readonly from: string;
  readonly to: string;
  readonly data: Buffer;
  readonly commits: readonly Commit[];
  readonly marks: readonly Mark[];
  readonly meta: JsonObject;
}

/** Keeps a log over several runs: hand `kept` of one run to the next. */
export class MemoryLog implements LogWriter {
  readonly parts: KeptPart[];
  head: LogHead | undefined;
  #stream = 0;
  #fresh: boolean | undefined;
  #busy = false;
  merges = 0;
  /** Awaited in each append before the part counts; `hang` until the signal aborts, reject, or be slow. */
  beforeAppend: (signal: AbortSignal) => Promise<void> = async () => undefined;

  constructor(before?: MemoryLog, withHead = true) {
    this.parts = before?.parts ?? [];
    this.head = withHead ? before?.head : undefined;
    this.#stream = this.parts.at(-1)?.stream ?? 0;
  }

  resume(): void {
    if (this.head === undefined) throw new Error('nothing to resume');
    this.#fresh = false;
  }

  startStream(): void {
    this.#fresh = true;
    this.head = undefined;
  }

  async append(stretch: LogStretch, signal: AbortSignal): Promise<LogHead> {
    if (this.#busy) throw new Error('two appends at once');
    if (this.#fresh === undefined) throw new Error('neither resumed nor started');
    const { lineage, ancestors, from, to, commits, marks = [], meta } = stretch;
    if (!this.#fresh && (this.head?.to !== from || this.head.lineage !== lineage)) {
      throw new Error(`a stream at ${this.head?.to} cannot go on at ${from}`);
    }
    this.#busy = true;
    const first = createHash('sha256');
    for (const piece of stretch.data) first.update(piece);
    try {
      await this.beforeAppend(signal);
    } finally {
      this.#busy = false;
    }
    // What is handed over must stay what it was until the append settles.
    const data = Buffer.concat(stretch.data);
    if (createHash('sha256').update(data).digest('hex') !== first.digest('hex'))
      throw new Error('bytes changed');
    if (BigInt(`0x${to}`) - BigInt(`0x${from}`) !== BigInt(data.length)) throw new Error('length differs');
    if (this.#fresh) this.#stream += 1;
    this.#fresh = false;
    this.parts.push({
      stream: this.#stream,
      lineage,
      ancestors,
      from,
      to,
      data,
      commits: [...commits],
      marks: [...marks],
      meta,
    });
    this.head = { stream: String(this.#stream), sequence: this.parts.length, digest: '', lineage, to, meta };
    return this.head;
  }

  async merge(): Promise<void> {
    this.merges += 1;
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}
