/** Exit statuses of every verb but `wal push` and `wal fetch` (DESIGN §6). */
export type ExitStatus = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 130;

/** What the registry keeps for a code. */
export interface ErrorDefinition {
  /** The exit status a command ends with when this error ends it. */
  readonly exit: Exclude<ExitStatus, 0>;
  /** One sentence: what this code means in general. */
  readonly summary: string;
  /** Why it happens and what it does and does not endanger; a short paragraph for `docs/errors.md`. */
  readonly explanation: string;
  /** The remedy, used when the place that throws knows no better one. */
  readonly next: string;
}

/** Declares the codes of one area; keeps the literal keys so that codes stay typed. */
export function defineErrors<const T extends Record<string, ErrorDefinition>>(definitions: T): T {
  return definitions;
}
