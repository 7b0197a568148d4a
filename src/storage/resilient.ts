/** One wrapper around any store for retries, deadlines and limits, so that stores hold none of these themselves. */
import { type Clock, systemClock } from '../core/clock.ts';
import { type ErrorCode, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { Bandwidth } from './bandwidth.ts';
import { withDeadline } from './deadline.ts';
import { Slots } from './slots.ts';
import type {
  GetOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutResult,
  StoreCapabilities,
  StoreRisk,
} from './store.ts';

export type StoreOperation = 'put' | 'get' | 'head' | 'list' | 'delete' | 'check';

/** What a call waits for that failed and will be tried again. */
export interface WaitInfo {
  readonly operation: StoreOperation;
  /** The object, or the prefix of a list. */
  readonly name: string;
  /** How many attempts have failed. */
  readonly attempts: number;
  /** When the first of them failed, milliseconds since 1970. */
  readonly since: number;
  /** How long until the next attempt. */
  readonly delayMs: number;
  /** The last failure. */
  readonly error: HoldfastError;
}

export interface ResilienceOptions {
  /** Deadline of one attempt, for a pack of 32 MiB on a slow line as well. Default 120,000 ms. */
  readonly attemptMs?: number;
  /**
   * Deadline of one call with all its attempts, not counting the wait for a slot and for bandwidth.
   * Infinity waits until the signal is aborted. Default 300,000 ms.
   */
  readonly totalMs?: number;
  /** Also wait while the store is full, for who would rather wait than stop. Default false. */
  readonly retryFull?: boolean;
  /** Calls under way at once. Default 16. */
  readonly concurrency?: number;
  /** Of puts and gets together. Default: no limit. */
  readonly bytesPerSecond?: number;
  /** Called before each wait for another attempt. Must not throw. */
  readonly onWait?: (info: WaitInfo) => void;
  /** Called when a call that had waited succeeds. Must not throw. */
  readonly onRecovered?: (info: { readonly operation: StoreOperation; readonly since: number }) => void;
  readonly clock?: Clock;
  /** In [0, 1), for the jitter. */
  readonly random?: () => number;
}

/** Failures that time mends. A conflict, a lacking right or a broken disk is reported at once instead. */
const mendable: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'storage.unreachable',
  'storage.timeout',
  'net.unreachable',
  'net.timeout',
]);
const firstDelayMs = 100;
/** A store that comes back is noticed within this time, which is also what a waiting capture loses at most. */
const longestDelayMs = 10_000;
/** Objects of a list that are fetched in one attempt. */
const page = 256;

interface Call<T> {
  readonly operation: StoreOperation;
  readonly name: string;
  readonly signal: AbortSignal | undefined;
  readonly bytes?: number;
  /** `failed` tells how many attempts came before. */
  readonly work: (signal: AbortSignal, failed: number) => Promise<T>;
}

/**
 * Wraps `store`. All its duties are kept; `put` may be answered 'exists' with `afterFailure` when an attempt
 * whose answer got lost had created the object. A call that is given up rejects with its last failure.
 */
export function resilient(store: ObjectStore, options: ResilienceOptions = {}): ObjectStore {
  return new ResilientStore(store, options);
}

class ResilientStore implements ObjectStore {
  readonly address: string;
  readonly capabilities: StoreCapabilities;
  readonly #store: ObjectStore;
  readonly #options: ResilienceOptions;
  readonly #clock: Clock;
  readonly #slots: Slots;
  readonly #bandwidth: Bandwidth;

  constructor(store: ObjectStore, options: ResilienceOptions) {
    this.address = store.address;
    this.capabilities = store.capabilities;
    this.#store = store;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#slots = new Slots(options.concurrency ?? 16);
    this.#bandwidth = new Bandwidth(options.bytesPerSecond ?? Number.POSITIVE_INFINITY, this.#clock);
  }

  put(name: string, content: readonly Uint8Array[], options: PutOptions = {}): Promise<PutResult> {
    return this.#call({
      operation: 'put',
      name,
      signal: options.signal,
      bytes: content.reduce((sum, piece) => sum + piece.byteLength, 0),
      work: async (signal, failed) => {
        const result = await this.#store.put(name, content, { ...options, signal });
        return result.outcome === 'exists' && failed > 0 ? { ...result, afterFailure: true } : result;
      },
    });
  }

  async get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    const bytes = await this.#call({
      operation: 'get',
      name,
      signal: options.signal,
      work: (signal) => this.#store.get(name, { ...options, signal }),
    });
    // Paid afterwards, when the size is known: the next one waits.
    await this.#bandwidth.take(bytes.byteLength, options.signal);
    return bytes;
  }

  head(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<ObjectInfo | undefined> {
    return this.#call({
      operation: 'head',
      name,
      signal: options.signal,
      work: (signal) => this.#store.head(name, { signal }),
    });
  }

  delete(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return this.#call({
      operation: 'delete',
      name,
      signal: options.signal,
      work: (signal) => this.#store.delete(name, { signal }),
    });
  }

  checkWritable(options: { readonly signal?: AbortSignal } = {}): Promise<readonly StoreRisk[]> {
    return this.#call({
      operation: 'check',
      name: 'that it can be written',
      signal: options.signal,
      work: (signal) => this.#store.checkWritable({ signal }),
    });
  }

  async *list(
    prefix: string,
    options: { readonly after?: string; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<ObjectInfo> {
    let after = options.after ?? '';
    const listing = new Listing((signal) => this.#store.list(prefix, { after, signal }));
    try {
      for (;;) {
        const objects = await this.#call({
          operation: 'list',
          name: prefix,
          signal: options.signal,
          work: (signal) => listing.read(page, signal),
        });
        for (const object of objects) {
          options.signal?.throwIfAborted();
          after = object.name;
          yield object;
        }
        if (objects.length < page) return;
      }
    } finally {
      listing.stop();
    }
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  async #call<T>(call: Call<T>): Promise<T> {
    const { operation, signal } = call;
    let started: number | undefined;
    let since: number | undefined;
    for (let failed = 0; ; ) {
      try {
        if (call.bytes !== undefined) await this.#bandwidth.take(call.bytes, signal);
        const result = await this.#slots.run(signal, () => {
          started ??= this.#clock.monotonic();
          return this.#attempt(call, failed, started);
        });
        if (since !== undefined) this.#options.onRecovered?.({ operation, since });
        return result;
      } catch (error) {
        signal?.throwIfAborted();
        if (!this.#mends(error)) throw error;
        failed += 1;
        since ??= this.#clock.now();
        const delayMs = this.#delay(failed);
        const elapsed = this.#clock.monotonic() - (started ?? this.#clock.monotonic());
        if (elapsed + delayMs >= this.#totalMs) throw givenUp(error, failed, elapsed);
        this.#options.onWait?.({ operation, name: call.name, attempts: failed, since, delayMs, error });
        await this.#clock.sleep(delayMs, signal);
      }
    }
  }

  #attempt<T>(call: Call<T>, failed: number, started: number): Promise<T> {
    const left = started + this.#totalMs - this.#clock.monotonic();
    const ms = Math.max(0, Math.min(this.#options.attemptMs ?? 120_000, left));
    const timedOut = () =>
      new HoldfastError(
        'storage.timeout',
        `The store ${this.address} did not answer within ${Math.round(ms / 1000)} s (${call.operation} ${call.name}).`,
      );
    return withDeadline({ clock: this.#clock, ms, signal: call.signal, timedOut }, (signal) =>
      call.work(signal, failed),
    );
  }

  get #totalMs(): number {
    return this.#options.totalMs ?? 300_000;
  }

  #mends(error: unknown): error is HoldfastError {
    if (!isHoldfastError(error)) return false;
    return mendable.has(error.code) || (error.code === 'storage.full' && this.#options.retryFull === true);
  }

  /** Full jitter: many writers that lost one store must not come back in step. */
  #delay(failed: number): number {
    const random = this.#options.random ?? Math.random;
    return random() * Math.min(longestDelayMs, firstDelayMs * 2 ** (failed - 1));
  }
}

/** A list that is opened again after a failure, and is never waited for while it hangs. */
class Listing {
  readonly #open: (signal: AbortSignal) => AsyncIterable<ObjectInfo>;
  #current: { iterator: AsyncIterator<ObjectInfo>; abort: AbortController } | undefined;

  constructor(open: (signal: AbortSignal) => AsyncIterable<ObjectInfo>) {
    this.#open = open;
  }

  /** Up to `count` objects, fewer only at the end; all or none of them, so that a retry repeats nothing. */
  async read(count: number, signal: AbortSignal): Promise<ObjectInfo[]> {
    const abort = new AbortController();
    this.#current ??= { iterator: this.#open(abort.signal)[Symbol.asyncIterator](), abort };
    const current = this.#current;
    const aborted = () => {
      this.#current = undefined;
      current.abort.abort(signal.reason);
    };
    signal.addEventListener('abort', aborted, { once: true });
    try {
      const objects: ObjectInfo[] = [];
      while (objects.length < count) {
        const next = await current.iterator.next();
        if (next.done) break;
        objects.push(next.value);
      }
      return objects;
    } catch (error) {
      this.#current = undefined;
      throw error;
    } finally {
      signal.removeEventListener('abort', aborted);
    }
  }

  stop(): void {
    this.#current?.abort.abort();
    // Not awaited: nothing depends on it, and a store that hangs would hold up its caller.
    this.#current?.iterator.return?.().catch(() => undefined);
    this.#current = undefined;
  }
}

function givenUp(last: HoldfastError, attempts: number, elapsedMs: number): HoldfastError {
  return new HoldfastError(
    last.code,
    `${last.message} Given up after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'} in ${Math.round(elapsedMs / 1000)} s.`,
    { next: last.next, details: last.details, cause: last },
  );
}
