import type { ErrorDefinition } from '../errors.ts';

/** Declares the codes of one area; keeps the literal keys so that codes stay typed. */
export function defineErrors<const T extends Record<string, ErrorDefinition>>(definitions: T): T {
  return definitions;
}
