/**
 * Runs `wal push` with next to nothing loaded (measured: the program's own start takes longer than the rest), and
 * turns every end into a status that PostgreSQL reads rightly.
 */
import { systemClock } from '../core/clock.ts';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { createLogger } from '../core/log.ts';
import { noProgress } from '../core/progress.ts';
import { findConfigurationFile, type ResolvedConfiguration, readResolved } from '../core/resolved-config.ts';
import type { PushPlace } from '../operations/wal-push.ts';
import { printError } from './output.ts';
import type { WalArguments } from './wal-arguments.ts';

/** Statuses above 125 stop PostgreSQL's archiver or its recovery. */
const highest = 125;

/** Never rejects; returns the exit status. */
export async function runPush(given: WalArguments): Promise<number> {
  const abort = new AbortController();
  const stop = (signal: NodeJS.Signals) =>
    abort.abort(new HoldfastError('system.interrupted', `The command was interrupted by ${signal}.`));
  for (const signal of signals) process.on(signal, stop);
  try {
    const resolved = await resolve(given);
    const place = { ...resolved, ...sourceOf(resolved, given.source) };
    const { pushWal } = await import('../operations/wal-push.ts');
    const path = given.operands[0]!;
    await pushWal(
      { ...place, path, cwd: process.cwd(), others: !given.alone },
      contextOf(resolved, abort.signal),
    );
    return 0;
  } catch (error) {
    const thrown = abort.signal.aborted && !isHoldfastError(error) ? abort.signal.reason : error;
    const status = printError('wal push', thrown, { json: false });
    return status >= 1 && status <= highest ? status : 1;
  } finally {
    for (const signal of signals) process.off(signal, stop);
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

function contextOf({ log }: ResolvedConfiguration, signal: AbortSignal): RunContext {
  const write = (line: string) => process.stderr.write(line);
  return { signal, clock: systemClock, progress: noProgress, log: createLogger({ ...log, write }) };
}
