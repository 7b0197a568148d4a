/** The guard before anything that replaces live data: the same for commands and the service. Pure. */
import { HoldfastError } from '../core/errors.ts';

export interface GuardFacts {
  readonly source: string;
  /** What is about to happen, for the message: `Restoring ledger in place`. */
  readonly what: string;
  readonly force: boolean;
  /** `environment` of the configuration. */
  readonly environment: string | null;
  /** A person can be asked. */
  readonly terminal: boolean;
}

/**
 * `go` when forced, `ask` when the person at the terminal must type the source's name. Throws
 * `recovery.not-confirmed` where neither will do.
 */
export function guard({ source, what, force, environment, terminal }: GuardFacts): 'go' | 'ask' {
  if (force) return 'go';
  if (environment?.toLowerCase() === 'production') {
    throw new HoldfastError(
      'recovery.not-confirmed',
      `${what} needs --force, because the configuration says \`environment: ${environment}\`.`,
      { details: { source, environment } },
    );
  }
  if (!terminal) {
    throw new HoldfastError('recovery.not-confirmed', `${what} needs --force where no person can be asked.`, {
      details: { source },
    });
  }
  return 'ask';
}

/** Judges the answer of the person. Throws `recovery.not-confirmed`. */
export function checkAnswer({ source, what }: Pick<GuardFacts, 'source' | 'what'>, answer: string): void {
  if (answer.trim() === source) return;
  throw new HoldfastError(
    'recovery.not-confirmed',
    `${what} was not confirmed: the answer was not ${source}.`,
    {
      details: { source },
    },
  );
}
