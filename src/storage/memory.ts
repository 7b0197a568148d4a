/** A store in memory for tests, which fails on command in the ways in which real stores fail. */
import { createHash } from 'node:crypto';
import { type Clock, systemClock } from '../core/clock.ts';
import { type ErrorCode, HoldfastError } from '../core/errors.ts';
import { checkObjectName } from './name.ts';
import { resolveRange } from './range.ts';
import type {
  GetOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutResult,
  StoreCapabilities,
  StoreRisk,
} from './store.ts';

/** One call that a fault plan may spoil. */
export interface MemoryCall {
  readonly operation: 'put' | 'get' | 'head' | 'list' | 'delete' | 'check';
  /** The object, or the prefix of a list. */
  readonly name: string;
  /** Counts the calls of this handle from 0. */
  readonly index: number;
}

export type Fault =
  /** Nothing happens but an error. */
  | { readonly kind: 'fail'; readonly code?: ErrorCode }
  /** No answer until aborted; nothing happens. */
  | { readonly kind: 'hang' }
  /** Part of the bytes arrives, then the connection breaks; nothing becomes visible. As `fail` but for puts. */
  | { readonly kind: 'tear' }
  /** It happens, but the caller gets an error. */
  | { readonly kind: 'lose-answer' }
  /** The caller gets an error now, and it happens `ms` later. */
  | { readonly kind: 'late'; readonly ms: number }
  /** It happens `ms` later, so calls overtake one another. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** A list does not show what was created in the last `ms`. No fault for others. */
  | { readonly kind: 'stale'; readonly ms: number };

/** Says what goes wrong with a call; undefined: nothing. */
export type FaultPlan = (call: MemoryCall) => Fault | undefined;

export interface MemoryStoreOptions {
  readonly faults?: FaultPlan;
  readonly clock?: Clock;
  /** How far the store's own clock is ahead of `clock`, in ms. */
  readonly skewMs?: number;
  readonly capabilities?: Partial<StoreCapabilities>;
  /** The objects of this store instead of none: another handle, as another process would have. */
  readonly sharing?: MemoryStore;
}

interface StoredObject {
  readonly bytes: Uint8Array;
  readonly storedAt: number;
}

export class MemoryStore implements ObjectStore {
  readonly address = 'memory:';
  readonly capabilities: StoreCapabilities;
  /** Puts of which only a part arrived. */
  torn = 0;
  readonly #objects: Map<string, StoredObject>;
  readonly #faults: FaultPlan;
  readonly #clock: Clock;
  readonly #skewMs: number;
  readonly #late: Promise<unknown>[] = [];
  #calls = 0;

  constructor(options: MemoryStoreOptions = {}) {
    this.capabilities = {
      delete: true,
      list: true,
      read: true,
      versions: false,
      objectLock: false,
      ...options.capabilities,
    };
    this.#objects = options.sharing === undefined ? new Map() : options.sharing.#objects;
    this.#faults = options.faults ?? (() => undefined);
    this.#clock = options.clock ?? systemClock;
    this.#skewMs = options.skewMs ?? 0;
  }

  async put(name: string, content: readonly Uint8Array[], options: PutOptions = {}): Promise<PutResult> {
    checkObjectName(name);
    // Copied at once: what happens late must not see buffers that their owner uses again.
    // A plain array, since slicing a Buffer would hand out the stored bytes themselves.
    const bytes = new Uint8Array(Buffer.concat(content));
    return this.#call('put', name, options.signal, () => this.#create(name, bytes, options.sha256));
  }

  async get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    checkObjectName(name);
    return this.#call('get', name, options.signal, () => {
      const object = this.#objects.get(name);
      if (object === undefined) {
        throw new HoldfastError('storage.not-found', `The store ${this.address} has no object ${name}.`);
      }
      const { start, end } = resolveRange(object.bytes.byteLength, options);
      return object.bytes.slice(start, end);
    });
  }

  async head(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<ObjectInfo | undefined> {
    checkObjectName(name);
    return this.#call('head', name, options.signal, () => {
      const object = this.#objects.get(name);
      return object && { name, bytes: object.bytes.byteLength, storedAt: object.storedAt };
    });
  }

  async *list(
    prefix: string,
    options: { readonly after?: string; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<ObjectInfo> {
    const { after = '', signal } = options;
    const objects = await this.#call('list', prefix, signal, (staleMs) => {
      const visible = [...this.#objects].filter(
        ([name, object]) =>
          name.startsWith(prefix) &&
          name > after &&
          (staleMs === 0 || object.storedAt <= this.#now() - staleMs),
      );
      return visible.sort(([a], [b]) => (a < b ? -1 : 1));
    });
    for (const [name, { bytes, storedAt }] of objects) {
      signal?.throwIfAborted();
      yield { name, bytes: bytes.byteLength, storedAt };
    }
  }

  async delete(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    checkObjectName(name);
    return this.#call('delete', name, options.signal, () => {
      this.#objects.delete(name);
    });
  }

  async checkWritable(options: { readonly signal?: AbortSignal } = {}): Promise<readonly StoreRisk[]> {
    return this.#call('check', '', options.signal, () => []);
  }

  /** Waits also for what happens late. */
  async close(): Promise<void> {
    await Promise.all(this.#late);
  }

  /** Changes an object behind everybody's back, as a failing disk or an attacker would. */
  damage(name: string, change: (bytes: Uint8Array) => Uint8Array): void {
    const object = this.#objects.get(name);
    if (object === undefined) throw new HoldfastError('storage.not-found', `no object ${name} to damage`);
    this.#objects.set(name, { ...object, bytes: change(object.bytes.slice()) });
  }

  #now(): number {
    return Math.floor(this.#clock.now() + this.#skewMs);
  }

  #create(name: string, bytes: Uint8Array, sha256: Uint8Array | undefined): PutResult {
    if (sha256 !== undefined && !createHash('sha256').update(bytes).digest().equals(sha256)) {
      throw new HoldfastError(
        'storage.digest-mismatch',
        `The bytes of ${name} are not those of its SHA-256.`,
      );
    }
    const earlier = this.#objects.get(name);
    if (earlier === undefined) {
      const storedAt = this.#now();
      this.#objects.set(name, { bytes, storedAt });
      return { outcome: 'created', storedAt };
    }
    // As put-only credentials would have it: who cannot read cannot compare.
    if (this.capabilities.read && Buffer.compare(earlier.bytes, bytes) !== 0) {
      throw new HoldfastError(
        'storage.conflict',
        `The object ${name} in ${this.address} holds other bytes.`,
        {
          details: { name },
        },
      );
    }
    return { outcome: 'exists', storedAt: earlier.storedAt };
  }

  async #call<T>(
    operation: MemoryCall['operation'],
    name: string,
    signal: AbortSignal | undefined,
    work: (staleMs: number) => T,
  ): Promise<T> {
    signal?.throwIfAborted();
    const fault = this.#faults({ operation, name, index: this.#calls++ });
    switch (fault?.kind) {
      case undefined:
        return work(0);
      case 'stale':
        return work(fault.ms);
      case 'delay':
        await this.#clock.sleep(fault.ms, signal);
        return work(0);
      case 'hang':
        return await hang(signal);
      case 'tear':
        if (operation === 'put') this.torn += 1;
        throw failure(operation, name, 'storage.unreachable');
      case 'lose-answer':
        work(0);
        throw failure(operation, name, 'storage.unreachable');
      case 'late':
        // Nobody is left to hear how it ends.
        this.#late.push(Promise.allSettled([this.#clock.sleep(fault.ms).then(() => work(0))]));
        throw failure(operation, name, 'storage.unreachable');
      case 'fail':
        throw failure(operation, name, fault.code ?? 'storage.unreachable');
    }
  }
}

function hang(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

function failure(operation: string, name: string, code: ErrorCode): HoldfastError {
  return new HoldfastError(code, `The store memory: broke off (${operation} ${name}).`);
}

/** How often each kind of fault strikes, from 0 to 1 together. */
export type FaultRates = Readonly<Partial<Record<Fault['kind'], number>>>;

/** A plan that strikes at random, the same for the same seed. Delays are up to `longestMs`. */
export function seededFaults(seed: number, rates: FaultRates, longestMs = 60_000): FaultPlan {
  const random = mulberry32(seed);
  return () => {
    let dice = random();
    const ms = Math.floor(random() * longestMs);
    for (const [kind, rate] of Object.entries(rates) as [Fault['kind'], number][]) {
      dice -= rate;
      if (dice < 0) return { kind, ms };
    }
    return undefined;
  };
}

/** A small seedable generator; Node's own cannot be seeded. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
