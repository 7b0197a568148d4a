/** What the configuration is once it is read, and what reading it takes. */
import type { z } from 'zod';
import type { LogFormat, LogLevel } from './log.ts';
import type { Secrets } from './redaction.ts';

/** Where the secret that opens the repository comes from. Paths are absolute. */
export interface KeySettings {
  readonly passphrase?: string | undefined;
  readonly passphraseFile?: string | undefined;
  readonly passphraseCommand?: readonly string[] | undefined;
  readonly identityFile?: string | undefined;
  readonly recipients?: readonly string[] | undefined;
  /** The variables that `passphrase` names and that are not set. Matters only to commands that need the key. */
  readonly missingVariables?: readonly string[] | undefined;
}

export interface SourceConfiguration {
  readonly name: string;
  readonly kind: string;
  /** As the kind's schema returned them: pass them to `SourceKind.open`. */
  readonly settings: unknown;
  /** Variables that its settings need and that are not set, each as a line with its place: it cannot be opened. */
  readonly missing?: readonly string[];
}

export interface Configuration {
  /** Absolute path of the configuration file; null in zero-configuration mode. */
  readonly file: string | null;
  /** Address of the store: an absolute path, or a URL. */
  readonly repository: string;
  readonly key: KeySettings;
  /** Absolute path of the folder for what this host keeps. It need not exist yet. */
  readonly state: string;
  /** IANA name. */
  readonly timezone: string;
  readonly environment: string | null;
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  readonly sources: Readonly<Record<string, SourceConfiguration>>;
  /** Where each value came from, by its path (`sources.ledger.url`); paths not named here have their default. */
  readonly origins: Readonly<Record<string, string>>;
}

export interface LoadOptions {
  /** Settings schema of each source kind, without `kind` itself. Unknown settings are always refused. */
  readonly kinds: Readonly<Record<string, z.ZodType>>;
  /** The file given with `--config`; goes before everything else. */
  readonly path?: string | undefined;
  /** The address given with `--repository`; replaces the configured one. */
  readonly repository?: string | undefined;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Every secret that the configuration holds is added here. */
  readonly secrets?: Secrets;
}

/** An environment variable and where its value was found. */
export interface Variable {
  readonly value: string;
  /** `environment`, or the path of the `.env`. */
  readonly from: string;
}

export type Variables = Readonly<Record<string, Variable>>;
