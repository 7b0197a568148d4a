/** Turns what operations report into a stream of events that any renderer can show. */
import type { Clock } from './clock.ts';
import { isHoldfastError } from './errors.ts';
import type { Progress, Step, StepOptions } from './progress.ts';

export type ProgressUnit = NonNullable<StepOptions['unit']>;

/** One event of one step. `done` and `ms` are cumulative, so that a missed event costs nothing. */
export interface ProgressEvent {
  readonly event: 'start' | 'advance' | 'note' | 'done' | 'failed';
  /** Counts up from 1; unique in one run. */
  readonly id: number;
  /** The step above; null for a step at the root. */
  readonly parent: number | null;
  readonly name: string;
  /** Wall clock, ms since 1970. */
  readonly time: number;
  /** Since the step's start, ms. */
  readonly ms: number;
  /** Amount done so far, in `unit`. */
  readonly done: number;
  /** Expected amount; null while unknown. */
  readonly total: number | null;
  readonly unit: ProgressUnit;
  /** The note, or the summary of `done`. */
  readonly text?: string;
  /** With `failed`. */
  readonly error?: { readonly code: string | null; readonly message: string };
}

// Ten a second look alive; more would only cost time (a snapshot advances thousands of times a second).
const leastMsBetweenAdvances = 100;

/**
 * The root of a progress tree. Every event goes to `sink` at once, advances at most ten times a second a step;
 * the figures of the last advance are in `done` or `failed`. A sink that throws loses that event only.
 */
export function createProgress(sink: (event: ProgressEvent) => void, clock: Clock): Progress {
  let lastId = 0;
  const deliver = (event: ProgressEvent) => {
    try {
      sink(event);
    } catch (error) {
      // A display that breaks must not end a backup; the failure itself is shown once, by Node.
      process.emitWarning(`progress could not be shown: ${String(error)}`, { code: 'HOLDFAST_PROGRESS' });
    }
  };
  const open = (parent: number | null, name: string, options: StepOptions = {}): Step => {
    lastId += 1;
    const id = lastId;
    const started = clock.monotonic();
    let lastAdvance = started;
    let [done, total, ended] = [0, options.total ?? null, false];
    const send = (event: ProgressEvent['event'], more: Pick<ProgressEvent, 'text' | 'error'> = {}) =>
      deliver({
        event,
        id,
        parent,
        name,
        time: clock.now(),
        ms: Math.round(clock.monotonic() - started),
        done,
        total,
        unit: options.unit ?? 'bytes',
        ...more,
      });
    const advanced = () => {
      const now = clock.monotonic();
      if (ended || now - lastAdvance < leastMsBetweenAdvances) return;
      lastAdvance = now;
      send('advance');
    };
    const end = (event: 'done' | 'failed', more: Pick<ProgressEvent, 'text' | 'error'>) => {
      if (ended) return;
      ended = true;
      send(event, more);
    };
    send('start');
    return {
      step: (childName, childOptions) => open(id, childName, childOptions),
      advance: (amount) => {
        done += amount;
        advanced();
      },
      total: (amount) => {
        total = amount;
        advanced();
      },
      note: (text) => send('note', { text }),
      done: (summary) => end('done', summary === undefined ? {} : { text: summary }),
      failed: (error) => end('failed', { error: describeError(error) }),
    };
  };
  return { step: (name, options) => open(null, name, options) };
}

function describeError(error: unknown): NonNullable<ProgressEvent['error']> {
  if (isHoldfastError(error)) return { code: error.code, message: error.message };
  return { code: null, message: error instanceof Error ? error.message : String(error) };
}
