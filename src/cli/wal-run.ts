/**
 * Runs `wal push` with next to nothing loaded, and `wal fetch`, and turns every end into a status that PostgreSQL
 * reads rightly.
 */
import { spawn } from 'node:child_process';
import { systemClock } from '../core/clock.ts';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { createLogger } from '../core/log.ts';
import { noProgress } from '../core/progress.ts';
import { Secrets } from '../core/redaction.ts';
import { findConfigurationFile, type ResolvedConfiguration, readResolved } from '../core/resolved-config.ts';
import type { PushPlace } from '../operations/wal-push.ts';
import type { Workspace } from '../operations/workspace.ts';
import { printError } from './output.ts';
import type { WalArguments } from './wal-arguments.ts';

/** Statuses above 125 stop PostgreSQL's archiver or its recovery. */
const highest = 125;

/** Never rejects; returns the exit status: 0, or 1 to 125. */
export async function runPush(given: WalArguments): Promise<number> {
  const interruption = new Interruption();
  try {
    const resolved = await resolve(given);
    const place = { ...resolved, ...sourceOf(resolved, given.source) };
    const { pushWal } = await import('../operations/wal-push.ts');
    const path = given.operands[0]!;
    await pushWal(
      { ...place, path, cwd: process.cwd(), others: !given.alone, asked: asked() },
      contextOf(resolved.log, interruption.signal),
    );
    return 0;
  } catch (error) {
    const status = tell('wal push', error, interruption.signal);
    return status >= 1 && status <= highest ? status : 1;
  } finally {
    interruption.end();
  }
}

/** As the launcher puts it together. */
function asked(): string {
  return ['mark 1', process.env.HOLDFAST_CONFIG ?? '', ...process.argv.slice(2, -1)].join(' ');
}

/**
 * Never rejects. 0 found, 1 proven absent, 126 anything else: on any status up to 125 PostgreSQL takes the log for
 * ended and promotes. Behind the launcher absent is 64, because Node itself ends with 1 when it cannot start.
 */
export async function runFetch(given: WalArguments): Promise<number> {
  const interruption = new Interruption();
  const [file, to] = given.operands as [string, string];
  const secrets = new Secrets();
  let workspace: Workspace | undefined;
  try {
    const { Workspace } = await import('../operations/workspace.ts');
    workspace = await Workspace.load({ config: given.config, secrets });
    const context = contextOf(workspace.configuration.log, interruption.signal, secrets);
    const { WalFetch } = await import('../operations/wal-fetch.ts');
    const fetch = await WalFetch.open(workspace, { cwd: process.cwd(), source: given.source }, context);
    const { found, whole } = await fetch.file(file, to);
    if (!found) return process.env.HOLDFAST_LAUNCHED === '1' ? absentBehindLauncher : 1;
    if (whole && !given.alone) startAhead(given, file);
    return 0;
  } catch (error) {
    tell('wal fetch', error, interruption.signal, secrets);
    return fetchFailed;
  } finally {
    interruption.end();
    await workspace?.close();
  }
}

/** Reads ahead for `wal fetch`; nobody looks at its status. */
export async function runAhead(given: WalArguments): Promise<number> {
  const interruption = new Interruption();
  const secrets = new Secrets();
  try {
    const { Workspace } = await import('../operations/workspace.ts');
    const workspace = await Workspace.load({ config: given.config, secrets });
    const { readAhead } = await import('../operations/wal-ahead.ts');
    const place = { cwd: process.cwd(), source: given.source };
    const context = contextOf(workspace.configuration.log, interruption.signal, secrets);
    await readAhead(workspace, place, given.operands[0]!, context);
    await workspace.close();
    return 0;
  } catch (error) {
    return tell('wal ahead', error, interruption.signal, secrets);
  } finally {
    interruption.end();
  }
}

/** The one that runs already notices by itself that another file was asked for. */
function startAhead(given: WalArguments, file: string): void {
  const { source, config } = given;
  const options = [
    ...(config === undefined ? [] : ['--config', config]),
    ...(source === undefined ? [] : ['--source', source]),
  ];
  const child = spawn(
    process.execPath,
    [...process.execArgv, process.argv[1]!, ...options, 'wal', 'ahead', file],
    {
      detached: true,
      stdio: 'ignore',
    },
  );
  // Without it replay is slower, nothing else.
  child.on('error', () => undefined);
  child.unref();
}

const fetchFailed = 126;
const absentBehindLauncher = 64;

function tell(command: string, error: unknown, signal: AbortSignal, secrets?: Secrets): number {
  const thrown = signal.aborted && !isHoldfastError(error) ? signal.reason : error;
  const clean = (text: string) => secrets?.redact(text) ?? text;
  return printError(command, thrown, { json: false, clean });
}

class Interruption {
  readonly #abort = new AbortController();
  readonly #stop = (signal: NodeJS.Signals) =>
    this.#abort.abort(new HoldfastError('system.interrupted', `The command was interrupted by ${signal}.`));

  constructor() {
    for (const signal of signals) process.on(signal, this.#stop);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  end(): void {
    for (const signal of signals) process.off(signal, this.#stop);
  }
}

const signals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];

/** What an earlier command kept, or the configuration itself, which is then kept. */
async function resolve(given: WalArguments): Promise<ResolvedConfiguration> {
  const file = await findConfigurationFile(given.config, process.env, process.cwd());
  const kept = file === null ? undefined : await readResolved(file, process.env);
  if (kept !== undefined) return kept;
  const { resolveConfiguration } = await import('../operations/resolve-configuration.ts');
  return await resolveConfiguration(given.config);
}

function sourceOf(
  resolved: ResolvedConfiguration,
  name: string | undefined,
): Pick<PushPlace, 'source' | 'kind'> {
  const postgres = resolved.sources.filter(({ kind }) => kind === 'postgres');
  const listed = resolved.sources.map((one) => one.name).join(', ') || 'none';
  const [only, ...more] = name === undefined ? postgres : postgres.filter((one) => one.name === name);
  if (only !== undefined && more.length === 0) return { source: only.name, kind: only.kind };
  throw new HoldfastError(
    'config.unknown-source',
    name === undefined
      ? `Which PostgreSQL source is meant? Configured: ${listed}.`
      : `No PostgreSQL source is called ${name}. Configured: ${listed}.`,
    { next: 'Name it: holdfast wal push --source NAME %p' },
  );
}

function contextOf(
  log: ResolvedConfiguration['log'],
  signal: AbortSignal,
  secrets = new Secrets(),
): RunContext {
  const write = (line: string) => process.stderr.write(line);
  return { signal, clock: systemClock, progress: noProgress, log: createLogger({ ...log, write, secrets }) };
}
