/** What a verb is to the program. */
import type { Command } from 'commander';

/** What a module in `commands/` exports. */
export interface VerbModule {
  /** Adds arguments, options, examples and the action to the verb's command. `verbs`: all there are. */
  define(command: Command, verbs: readonly Verb[]): void;
}

export interface Verb {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<VerbModule>;
}
