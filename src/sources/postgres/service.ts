/** Stops and starts the server of a source for a restore in place: by the configured commands, else with pg_ctl. */
import { chown, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../../core/context.ts';
import { HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { runProcess } from '../../core/process.ts';
import { type FoundPlace, type PlaceSource, runningIn } from './own-place.ts';
import { parseLsn, positionOf } from './position.ts';
import { shellQuote } from './recovery-settings.ts';
import { lastLines, readTail } from './server-log.ts';
import { runProgram, type ServerUser } from './server-user.ts';
import { PostgresConnection } from './wire.ts';

/** A shutdown writes a checkpoint, which on a large server takes its time. */
const serviceMs = 15 * 60_000;
const answerMs = 10_000;
const pollMs = 200;

/** As people write them. */
export function serviceCommands(
  { settings }: PlaceSource,
  { directory, startedAs, owner }: FoundPlace,
): { readonly stop: string; readonly start: string | null } {
  const as = owner === undefined ? '' : `runuser -u ${owner.name} -- `;
  const control = startedAs === undefined ? 'pg_ctl' : join(startedAs.binDir, 'pg_ctl');
  const line = (argv: readonly string[]) => argv.map(shellQuote).join(' ');
  const options = startedAs?.options ?? '';
  const given = options === '' ? '' : ` -o ${shellQuote(options)}`;
  return {
    stop:
      settings.stop === undefined
        ? `${as}${control} -D ${shellQuote(directory)} -m fast stop`
        : line(settings.stop),
    start:
      settings.start !== undefined
        ? line(settings.start)
        : startedAs === undefined
          ? null
          : `${as}${control} -D ${shellQuote(directory)}${given} start`,
  };
}

/** pg_ctl, waiting. Throws `recovery.not-stopped` with what it said. */
export async function pgControl(
  binDir: string,
  directory: string,
  args: readonly string[],
  owner: ServerUser | undefined,
  signal: AbortSignal,
): Promise<void> {
  const all = ['-D', directory, '-w', '-t', String(serviceMs / 1000), ...args];
  const result = await runProgram(join(binDir, 'pg_ctl'), all, {
    user: owner,
    signal,
    deadlineMs: serviceMs + 5000,
  });
  if (result.status === 0) return;
  const said = lastLines(`${result.stdout}\n${result.stderr}`, 6).join(' ');
  throw new HoldfastError(
    'recovery.not-stopped',
    `pg_ctl ${args.join(' ')} failed for ${directory}: ${said}`,
    {
      cause: result.failure,
    },
  );
}

/** Nothing runs in the directory when it resolves. */
export async function stopService(
  source: PlaceSource,
  place: FoundPlace,
  { signal, clock }: RunContext,
): Promise<void> {
  if ((await runningIn(place.directory)) === undefined) return;
  const { stop } = source.settings;
  if (stop !== undefined) await command('stops', stop, signal);
  else if (place.startedAs === undefined) {
    throw new HoldfastError(
      'recovery.not-stopped',
      `How the server in ${place.directory} is stopped cannot be told.`,
      {
        next: 'Give its command with `stop` in the configuration of the source.',
      },
    );
  } else
    await pgControl(place.startedAs.binDir, place.directory, ['-m', 'fast', 'stop'], place.owner, signal);
  const until = clock.monotonic() + 60_000;
  while ((await runningIn(place.directory)) !== undefined) {
    if (clock.monotonic() > until) {
      throw new HoldfastError(
        'recovery.not-stopped',
        `The server in ${place.directory} still runs after it was told to stop.`,
      );
    }
    await clock.sleep(pollMs, signal);
  }
}

async function command(
  does: string,
  [program, ...args]: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await runProcess(program!, args, { signal, deadlineMs: serviceMs });
  } catch (error) {
    signal.throwIfAborted();
    const said = isHoldfastError(error) ? error.message : String(error);
    throw new HoldfastError('recovery.not-stopped', `The command that ${does} the server failed: ${said}`, {
      cause: error,
    });
  }
}

export interface InService {
  readonly connection: string;
  readonly systemId: string;
  readonly timeline: number;
  /** A repository position. */
  readonly position: string;
}

/** Starts it and asks it, through the source's own connection, until it answers as a server that can be used. */
export async function startService(
  source: PlaceSource,
  place: FoundPlace,
  log: string,
  { signal, clock }: RunContext,
): Promise<InService> {
  const { start } = source.settings;
  if ((await runningIn(place.directory)) === undefined) {
    if (start !== undefined) await command('starts', start, signal);
    else if (place.startedAs === undefined) {
      throw new HoldfastError(
        'recovery.not-stopped',
        `The data are in place in ${place.directory}; how the server is started cannot be told.`,
        {
          next: 'Start it as usual, and give its command with `start` in the configuration of the source.',
        },
      );
    } else await startAsBefore(place, log, signal);
  }
  const until = clock.monotonic() + 120_000;
  for (;;) {
    try {
      return await ask(source, signal);
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      const passing = error.code.startsWith('net.') || error.code === 'postgres.not-ready';
      if (passing && clock.monotonic() < until) {
        await clock.sleep(pollMs, signal);
        continue;
      }
      const tail = (await readTail(log, 5)).join('\n  ');
      throw new HoldfastError(
        'recovery.not-stopped',
        `The data are in place in ${place.directory}, but the server does not answer: ${error.message}${tail === '' ? '' : `\n  ${tail}`}`,
        {
          cause: error,
          next: `Read its log, mend what it says, and start it; \`holdfast restore ${source.name} --undo\` brings back what was there.`,
        },
      );
    }
  }
}

/** With the arguments that it was started with the last time. */
async function startAsBefore(place: FoundPlace, log: string, signal: AbortSignal): Promise<void> {
  const { binDir, options } = place.startedAs!;
  // pg_ctl opens the log as the server's user.
  await writeFile(log, '', { flag: 'a' });
  const { owner } = place;
  if (owner !== undefined) await chown(log, owner.uid, owner.gid);
  const args = ['-l', log, ...(options === '' ? [] : ['-o', options]), 'start'];
  await pgControl(binDir, place.directory, args, owner, signal);
}

async function ask(source: PlaceSource, signal: AbortSignal): Promise<InService> {
  const sql = await PostgresConnection.connect(source.connection, { signal });
  try {
    const [row] = await sql.rows(
      `SELECT pg_catalog.pg_is_in_recovery() AS recovering,
              (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_id,
              CASE WHEN NOT pg_catalog.pg_is_in_recovery()
                   THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END AS segment,
              CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn`,
      { signal, timeoutMs: answerMs },
    );
    if (row?.recovering !== 'f') throw new HoldfastError('postgres.not-ready', 'It is in recovery.');
    return {
      connection: sql.describe(),
      systemId: row.system_id ?? '',
      timeline: Number.parseInt(row.segment?.slice(0, 8) ?? '', 16),
      position: positionOf(parseLsn(row.lsn ?? '')),
    };
  } finally {
    await sql.close();
  }
}
