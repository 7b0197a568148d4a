/** A clock for tests: time stands still while there is work and jumps to the next timer when there is none. */
import type { Clock } from '../core/clock.ts';

interface Timer {
  readonly at: number;
  readonly ring: () => void;
}

/** How often the event loop must come round without a new timer before time moves on. */
const idleTurns = 4;

export class VirtualClock implements Clock {
  readonly #start: number;
  #elapsed = 0;
  #timers: Timer[] = [];
  #pumping = false;

  /** `start`: what `now()` says at first, milliseconds since 1970. */
  constructor(start = Date.UTC(2026, 0, 1)) {
    this.#start = start;
  }

  now(): number {
    return this.#start + this.#elapsed;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  /** Lets time pass without anybody sleeping. */
  advance(ms: number): void {
    this.#elapsed += ms;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const abort = () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
        reject(signal?.reason);
      };
      const timer: Timer = {
        at: this.#elapsed + ms,
        ring: () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      this.#timers.push(timer);
      signal?.addEventListener('abort', abort, { once: true });
      void this.#pump();
    });
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#timers.length > 0) {
      for (let turn = 0; turn < idleTurns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      const next = this.#timers.reduce<Timer | undefined>(
        (first, timer) => (first === undefined || timer.at < first.at ? timer : first),
        undefined,
      );
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#elapsed = Math.max(this.#elapsed, next.at);
      next.ring();
    }
    this.#pumping = false;
  }
}
