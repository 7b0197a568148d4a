/**
 * What every operation starts from: the configuration, and from it, opened when first needed and closed
 * together, the store, the host's state, the repository, the sources and the secret that unlocks.
 */
import { configuredSource, loadConfiguration, requireComplete } from '../core/config.ts';
import type { Configuration, SourceConfiguration } from '../core/configuration.ts';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import type { Secrets } from '../core/redaction.ts';
import { keepResolved } from '../core/resolved-config.ts';
import { readSecretFile, resolvePassphrase } from '../core/secret.ts';
import { LocalState, Repository, type Unlock } from '../repository/repository.ts';
import { sourceKinds } from '../sources/open.ts';
import type { Source, SourceKind } from '../sources/source.ts';
import { openStore, type ResilienceOptions, type WaitInfo } from '../storage/open.ts';
import type { ObjectStore } from '../storage/store.ts';

export interface WorkspaceOptions {
  /** Path of the configuration file; default: found as DESIGN §6 says. */
  readonly config?: string | undefined;
  /** Address of the repository, instead of the configured one. */
  readonly repository?: string | undefined;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Every secret that is read is added here, so that no output shows it. */
  readonly secrets: Secrets;
}

export interface StoreChoice {
  readonly create?: boolean;
  readonly patient?: boolean;
}

export class Workspace {
  readonly configuration: Configuration;
  readonly secrets: Secrets;
  readonly #open: { close(): Promise<void> }[] = [];
  #state: Promise<LocalState> | undefined;

  private constructor(configuration: Configuration, secrets: Secrets) {
    this.configuration = configuration;
    this.secrets = secrets;
  }

  /** Reads the configuration; opens nothing yet. Throws `config.*`. */
  static async load(options: WorkspaceOptions): Promise<Workspace> {
    const kinds = Object.fromEntries(
      Object.entries(sourceKinds).map(([name, kind]) => [name, kind.settingsSchema]),
    );
    const configuration = await loadConfiguration({
      kinds,
      path: options.config,
      repository: options.repository,
      secrets: options.secrets,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    // What is given for one command only must not be kept for others.
    if (options.repository === undefined) await keepResolved(configuration, options.env ?? process.env);
    return new Workspace(configuration, options.secrets);
  }

  /** True when everything comes from well-known environment variables. */
  get zeroConfiguration(): boolean {
    return this.configuration.file === null;
  }

  /** What this host remembers. Creates the folder. */
  state(): Promise<LocalState> {
    this.#state ??= LocalState.open(this.configuration.state);
    return this.#state;
  }

  /**
   * The store under the repository. `create` makes its folder. A `patient` one waits for a store that is away or
   * full as long as it takes: for a capture, whose source keeps its log meanwhile.
   */
  async store(context: RunContext, options: StoreChoice = {}): Promise<ObjectStore> {
    const { log } = context;
    const store = await openStore(this.configuration.repository, {
      log,
      create: options.create ?? false,
      ...(options.patient === true ? { resilience: patience(log) } : {}),
    });
    this.#open.push(store);
    return store;
  }

  /** The repository, pins checked. Throws `repository.not-found`, `storage.unreachable`, … */
  async repository(context: RunContext, options: StoreChoice = {}): Promise<Repository> {
    try {
      return await Repository.open(await this.store(context, options), await this.state(), context);
    } catch (error) {
      throw await this.#firstUse(error);
    }
  }

  /**
   * True where `error` says that nothing is at the repository's address, and this host never used one there: then it
   * was most likely not created yet.
   */
  async isFirstUse(error: unknown): Promise<boolean> {
    if (!isHoldfastError(error, 'storage.unreachable') && !isHoldfastError(error, 'repository.not-found'))
      return false;
    return (await (await this.state()).pinOfAddress(this.configuration.repository)) === undefined;
  }

  /** Where this host never used a repository, the likely remedy for a missing one is to create it. */
  async #firstUse(error: unknown): Promise<unknown> {
    if (!(error instanceof HoldfastError) || !(await this.isFirstUse(error))) return error;
    const create = this.zeroConfiguration ? 'holdfast backup' : 'holdfast init';
    return new HoldfastError(error.code, error.message, {
      next: `If there is no repository there yet, create it: ${create}. Else: ${error.next}`,
      details: error.details,
      cause: error.cause,
    });
  }

  /** The named source's configuration; the only one where no name is given. Throws `config.unknown-source`. */
  sourceSettings(name?: string): SourceConfiguration {
    return configuredSource(this.configuration, name);
  }

  /** The named source, or the only one. Connects to nothing yet. Throws `config.invalid` where variables miss. */
  source(name?: string): Source {
    const configured = this.sourceSettings(name);
    requireComplete(configured);
    const source = this.kind(configured.kind).open(configured.name, configured.settings);
    this.#open.push(source);
    return source;
  }

  /** Throws `repository.newer-format` for kinds that this version does not know. */
  kind(name: string): SourceKind {
    const kind: SourceKind | undefined = Object.hasOwn(sourceKinds, name)
      ? sourceKinds[name as keyof typeof sourceKinds]
      : undefined;
    if (kind !== undefined) return kind;
    throw new HoldfastError(
      'repository.newer-format',
      `The repository holds a source of the kind ${name}, which this version of Holdfast does not know.`,
    );
  }

  /** The configured secrets; null where none are configured. Throws when they are configured but cannot be read. */
  async unlock(context: RunContext): Promise<Unlock | null> {
    const { key } = this.configuration;
    const options = { secrets: this.secrets, signal: context.signal };
    const identity = key.identityFile === undefined ? null : await readSecretFile(key.identityFile, options);
    const passphrase = await resolvePassphrase(key, options);
    for (const { message, remedy } of [identity, passphrase].flatMap((secret) => secret?.warnings ?? [])) {
      context.log.warn(message, { remedy });
    }
    if (identity === null && passphrase === null) return null;
    return {
      ...(passphrase === null ? {} : { passphrase: passphrase.value }),
      ...(identity === null ? {} : { identity: identityIn(identity.value, key.identityFile!) }),
    };
  }

  /** As `unlock`; throws `config.no-key` where none are configured. */
  async requireUnlock(context: RunContext): Promise<Unlock> {
    const unlock = await this.unlock(context);
    if (unlock !== null) return unlock;
    throw new HoldfastError(
      'config.no-key',
      'This command needs the secret that opens the repository, and the configuration names none.',
    );
  }

  /** Closes whatever was opened. Idempotent. */
  async close(): Promise<void> {
    const opened = this.#open.splice(0).reverse();
    await Promise.all(opened.map((one) => one.close()));
  }
}

/** An age identity file holds comments too. */
function identityIn(text: string, path: string): string {
  const found = text.split('\n').find((line) => line.startsWith('AGE-SECRET-KEY-1'));
  if (found !== undefined) return found.trim();
  throw new HoldfastError('config.no-key', `${path} holds no age identity (a line AGE-SECRET-KEY-1…).`, {
    details: { path },
  });
}

function patience(log: Logger): ResilienceOptions {
  return {
    totalMs: Number.POSITIVE_INFINITY,
    retryFull: true,
    onWait: ({ operation, attempts, error }: WaitInfo) => {
      const facts = { operation, attempts, code: error.code, reason: error.message };
      log.warn('The store of the repository is out of reach; waiting for it.', facts);
    },
    onRecovered: () => log.info('The store of the repository is back.'),
  };
}
