/** What a person who restored is told: the commands, in order, and a note that stays in the folder. Pure. */
import { join } from 'node:path';
import { recoverySettingsNote, restoreFolder, shellQuote } from './recovery-settings.ts';
import type { RestorePlan } from './restore-configuration.ts';
import { databaseOf } from './settings.ts';

export interface Commands {
  readonly start: string;
  /** Ends when the replay has ended: pg_ctl does not wait for that, and until then nobody is let in. */
  readonly wait: string;
  readonly stop: string;
  readonly connect: string;
  /** Takes the cut-off back. */
  readonly release: string;
}

/** Where the restored server logs to. */
export function serverLog(plan: RestorePlan): string {
  return join(plan.request.to, restoreFolder, 'server.log');
}

/** `database`: what a person connects to; default: the one that the source's settings name. */
export function commands(
  plan: RestorePlan,
  database: string = databaseOf(plan.request.settings) ?? 'postgres',
): Commands {
  const { owner, binaries, meta, request } = plan;
  const as =
    owner === undefined
      ? ''
      : process.platform === 'linux'
        ? `runuser -u ${owner.name} -- `
        : `sudo -u ${owner.name} `;
  const major = Math.floor(meta.version / 10_000);
  const folder = binaries?.binDir;
  const control = folder === undefined ? `pg_ctl` : shellQuote(join(folder, 'pg_ctl'));
  const to = shellQuote(request.to);
  const psql = `psql -h ${shellQuote(plan.socketDir)} -p ${plan.port} -U ${shellQuote(meta.superuser)}`;
  const note = folder === undefined ? ` # of PostgreSQL ${major}` : '';
  return {
    // Recovery can take hours, and pg_ctl gives up waiting after a minute by itself.
    start: `${as}${control} -D ${to} -l ${shellQuote(serverLog(plan))} -t 86400 start${note}`,
    wait: `until ${as}${psql} -d template1 -Atc 'SELECT 1' >/dev/null 2>&1; do sleep 2; tail -n 1 ${shellQuote(serverLog(plan))}; done`,
    stop: `${as}${control} -D ${to} -m fast stop`,
    connect: `${as}${psql} -d ${shellQuote(database)}`,
    release: `${as}${psql} -d postgres -f ${shellQuote(join(request.to, restoreFolder, 'release.sql'))}`,
  };
}

export function nextSteps(plan: RestorePlan, known: Commands, started: boolean): string[] {
  const readme = join(plan.request.to, restoreFolder, 'README.txt');
  return [
    ...(started ? [] : [known.start, known.wait]),
    known.connect,
    known.stop,
    `less ${shellQuote(readme)}`,
  ];
}

export function restoreReadme(known: Commands): string {
  return `This data directory was restored by Holdfast.

Start     ${known.start}
Replay    ${known.wait}
Connect   ${known.connect}
Stop      ${known.stop}

${recoverySettingsNote}

When it shall take over, and the original server is certainly gone:

1. ${known.release}
2. Check postgresql.conf and pg_hba.conf here: addresses, port, archiving, replication.
3. Stop it and start it again.

release.sql       takes the settings in postgresql.auto.conf back that Holdfast made
source.auto.conf  postgresql.auto.conf as the original server had it
config/           configuration files that lay outside the original data directory
wal/              the log to replay; can be deleted when the server has been promoted
`;
}
