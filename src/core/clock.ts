/** The injectable clock. Code that decides by time takes one; tests hand in their own. */
export interface Clock {
  /** Wall-clock time in milliseconds since 1970, UTC. May jump. */
  now(): number;
  /** Monotonic milliseconds, for durations. Never jumps. */
  monotonic(): number;
  /** Resolves after `ms`, rejects with the signal's reason when aborted first. Leaves no timer behind. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const done = () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      const abort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener('abort', abort, { once: true });
    }),
};
