/** A deadline for work that may not obey its signal. */
import type { Clock } from '../core/clock.ts';

export interface Deadline {
  readonly clock: Clock;
  /** Infinity for none. */
  readonly ms: number;
  readonly signal: AbortSignal | undefined;
  readonly timedOut: () => Error;
}

/**
 * Runs `work` with a signal that is aborted at the deadline or with the caller's signal, and rejects at that
 * moment, even when the work hangs on: a system call on a dead network file system cannot be called back.
 * Such work is left behind; whatever it still does, it must look at its signal before anything becomes visible.
 */
export async function withDeadline<T>(
  deadline: Deadline,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { clock, ms, signal, timedOut } = deadline;
  signal?.throwIfAborted();
  const inner = new AbortController();
  const timer = new AbortController();
  let aborted = () => inner.abort(signal?.reason);
  try {
    return await new Promise<T>((resolve, reject) => {
      const end = (reason: unknown) => {
        inner.abort(reason);
        reject(reason);
      };
      aborted = () => end(signal?.reason);
      signal?.addEventListener('abort', aborted, { once: true });
      if (ms !== Number.POSITIVE_INFINITY) {
        // The second path is the timer being put away below, which is no failure.
        clock.sleep(ms, timer.signal).then(
          () => end(timedOut()),
          () => undefined,
        );
      }
      work(inner.signal).then(resolve, reject);
    });
  } finally {
    signal?.removeEventListener('abort', aborted);
    timer.abort();
  }
}
