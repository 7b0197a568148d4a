/** What every operation is given; it never touches standard output, the wall clock or signals itself. */
import type { Clock } from './clock.ts';
import type { Logger } from './log.ts';
import type { Progress } from './progress.ts';

export interface RunContext {
  /** Aborted when the run shall end: every wait and every loop obeys it. */
  readonly signal: AbortSignal;
  readonly progress: Progress;
  readonly clock: Clock;
  readonly log: Logger;
}
