/** A limit on bytes per second, shared by all calls of a store. */
import type { Clock } from '../core/clock.ts';

/** At most this long a stretch of unused bandwidth may be caught up at once. */
const burstSeconds = 1;

/**
 * A token bucket that may go into debt: a pack larger than a second's worth passes whole when the bucket is
 * not empty, and the next one waits longer. Cutting packs up would not make them arrive more evenly.
 */
export class Bandwidth {
  readonly #bytesPerSecond: number;
  readonly #clock: Clock;
  #tokens: number;
  #at: number;

  constructor(bytesPerSecond: number, clock: Clock) {
    if (!(bytesPerSecond > 0)) throw new RangeError(`bandwidth ${bytesPerSecond} is not above 0`);
    this.#bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
    this.#tokens = bytesPerSecond * burstSeconds;
    this.#at = clock.monotonic();
  }

  /** Takes `bytes` out, and waits until those taken before are paid for. Rejects with the signal's reason. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === Number.POSITIVE_INFINITY) return;
    const debtBefore = -this.#refill();
    this.#tokens -= bytes;
    if (debtBefore > 0) await this.#clock.sleep((debtBefore / this.#bytesPerSecond) * 1000, signal);
  }

  #refill(): number {
    const now = this.#clock.monotonic();
    const earned = ((now - this.#at) / 1000) * this.#bytesPerSecond;
    this.#at = now;
    this.#tokens = Math.min(this.#bytesPerSecond * burstSeconds, this.#tokens + earned);
    return this.#tokens;
  }
}
