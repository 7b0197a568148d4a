/**
 * The one error type that people see, and the door to the registry of every code.
 *
 * An error says what happened, to what, why, and what to do next. The registry (`core/errors/`) holds for
 * each code its exit status, an explanation and a default remedy; `docs/errors.md` is generated from it.
 * Codes are typed: an unregistered code does not compile.
 */
import type { ErrorDefinition, ExitStatus } from './errors/define.ts';
import { type ErrorCode, errorRegistry } from './errors/registry.ts';

export type { ErrorDefinition, ExitStatus } from './errors/define.ts';
export type { ErrorCode } from './errors/registry.ts';

/** Facts about the case in hand. Never secrets: values here are printed and logged. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

export interface ErrorOptions {
  /** What to do next, in this very case (a command, an SQL statement, a line of configuration). */
  readonly next?: string;
  readonly details?: ErrorDetails;
  readonly cause?: unknown;
}

/** An error with a registered code. `message` says what happened, to what and why, in one or two sentences. */
export class HoldfastError extends Error {
  readonly code: ErrorCode;
  readonly exit: Exclude<ExitStatus, 0>;
  readonly next: string;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HoldfastError';
    this.code = code;
    const definition: ErrorDefinition = errorRegistry[code];
    this.exit = definition.exit;
    this.next = options.next ?? definition.next;
    this.details = options.details ?? {};
  }
}

/** True when `error` is a HoldfastError, with that code where one is given. */
export function isHoldfastError(error: unknown, code?: ErrorCode): error is HoldfastError {
  return error instanceof HoldfastError && (code === undefined || error.code === code);
}

/** The system's error code (`ENOSPC`, `ECONNREFUSED`, …) of a Node error, if it has one. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
