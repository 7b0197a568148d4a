/**
 * The progress event tree. An operation opens steps; each step may have children; a renderer shows the
 * events on a terminal, as plain lines in a pipe, or as JSON. Reporting never fails and never blocks.
 */
export interface StepOptions {
  /** Expected amount, in the step's unit, when it is known. */
  readonly total?: number;
  /** What `advance` counts. Default `bytes`. */
  readonly unit?: 'bytes' | 'files' | 'objects' | 'rows';
}

export interface Step extends Progress {
  /** Adds to the amount done. */
  advance(amount: number): void;
  /** Sets or corrects the expected amount. */
  total(amount: number): void;
  /** A short remark that is worth a line of its own (a fact, never a secret). */
  note(text: string): void;
  /** Ends the step well; `summary` replaces its figures in the display. Idempotent. */
  done(summary?: string): void;
  /** Ends the step badly. Idempotent. */
  failed(error: unknown): void;
}

export interface Progress {
  /** Opens a child step. */
  step(name: string, options?: StepOptions): Step;
}

/** Runs `work` inside a step, ending it well or badly with the work. */
export async function inStep<T>(
  parent: Progress,
  name: string,
  options: StepOptions,
  work: (step: Step) => Promise<T>,
): Promise<T> {
  const step = parent.step(name, options);
  try {
    const result = await work(step);
    step.done();
    return result;
  } catch (error) {
    step.failed(error);
    throw error;
  }
}

const silentStep: Step = {
  step: () => silentStep,
  advance: () => undefined,
  total: () => undefined,
  note: () => undefined,
  done: () => undefined,
  failed: () => undefined,
};

/** Progress that nobody watches. */
export const noProgress: Progress = { step: () => silentStep };
