import { type Command, Option } from 'commander';
import { HoldfastError } from '../../core/errors.ts';
import type { PreparedRestore } from '../../operations/restore.ts';
import { confirmed } from '../confirm.ts';
import type { CommandOutcome } from '../output.ts';
import type { TargetOptions } from '../restore-target.ts';
import { type CommandRun, runCommand } from '../run.ts';
import { examples } from '../text.ts';

interface RestoreFlags extends TargetOptions {
  readonly timeline?: string;
  readonly to?: string;
  readonly tablespace: readonly string[];
  readonly start?: boolean;
  readonly inPlace?: boolean;
  readonly undo?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

export function define(command: Command): void {
  command
    .argument('[source]', 'what to restore (default: the only one)')
    .option('--at <time>', 'the state at this time: "2026-11-21 14:30 UTC", "10m ago"')
    .option('--lsn <position>', 'the state just before this log position')
    .option('--xid <id>', 'the state with this transaction committed')
    .option('--name <name>', 'a point named with `holdfast mark`')
    .option('--snapshot <id>', 'exactly this snapshot (or latest), without any log')
    .option('--exclusive', 'without (--inclusive: with) what is exactly there')
    .addOption(new Option('--inclusive', 'with the record that is at --lsn').hideHelp())
    .option('--timeline <number>', 'the history meant, where several hold the moment')
    .option('--to <folder>', 'a new folder (default: named after source and moment)')
    .option('--tablespace <map>', 'OID=FOLDER or OLD-FOLDER=FOLDER; may be repeated', collect, [])
    .option('--start', 'start the server there, replay, leave it running')
    .option('--in-place', 'exchange the data of the source itself; undoable')
    .option('--undo', 'bring back what the last restore in place put aside')
    .option('--force', 'in place and undo without asking')
    .option('--dry-run', 'print the plan and do nothing')
    .addHelpText(
      'after',
      examples(
        'holdfast restore --at "10m ago" --to ./rescued --start',
        'holdfast restore ledger --at "2026-11-21T14:30:00Z" --dry-run',
      ),
    )
    .action(async (source: string | undefined, flags: RestoreFlags, self: Command) => {
      await runCommand(self, (run) =>
        flags.undo === true ? undoRestore(run, source, flags) : restore(run, source, flags),
      );
    });
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

async function restore(
  run: CommandRun,
  source: string | undefined,
  flags: RestoreFlags,
): Promise<CommandOutcome> {
  if (flags.inPlace === true && flags.to !== undefined) {
    throw new HoldfastError('command.usage', 'Only one of --in-place and --to can be meant.');
  }
  const { targetOf } = await import('../restore-target.ts');
  const workspace = await run.workspace();
  const timezone = run.globals.timezone ?? workspace.configuration.timezone;
  const target = targetOf(flags, timezone);
  if (target.kind === 'time') run.say(`Target: ${target.inclusive ? '' : 'before '}${target.utc} (UTC).`);
  const { prepareRestore } = await import('../../operations/restore.ts');
  const context = run.context();
  const prepared: PreparedRestore = await prepareRestore(
    workspace,
    {
      source,
      target,
      timeline: flags.timeline,
      to: flags.to,
      cwd: run.cwd,
      start: flags.start === true,
      inPlace: flags.inPlace === true,
      force: flags.force === true,
      places: placesOf(flags.tablespace),
    },
    context,
  );
  const { planJson, planText, replacedText, restoredText } = await import('../recovery.ts');
  const plan = planJson(prepared);
  if (flags.dryRun === true) return { result: { plan, dryRun: true }, text: planText(prepared) };
  run.say(planText(prepared));
  if (flags.inPlace !== true) {
    const restored = await prepared.execute(context);
    return { result: { plan, restored }, text: restoredText(restored, prepared.formatPosition) };
  }
  const name = prepared.plan.source;
  await confirmed(run, {
    source: name,
    what: `Restoring ${name} in place`,
    force: flags.force === true,
    environment: workspace.configuration.environment,
  });
  const { restored, replaced } = await prepared.replace(context);
  return {
    result: { plan, restored: { ...restored, server: null, next: [], to: replaced.directory }, replaced },
    text: replacedText(name, replaced, prepared.formatPosition, restored),
  };
}

async function undoRestore(
  run: CommandRun,
  source: string | undefined,
  flags: RestoreFlags,
): Promise<CommandOutcome> {
  const workspace = await run.workspace();
  const { name } = workspace.sourceSettings(source);
  await confirmed(run, {
    source: name,
    what: `Undoing the restore of ${name} in place`,
    force: flags.force === true,
    environment: workspace.configuration.environment,
  });
  const { undo } = await import('../../operations/undo.ts');
  const done = await undo(workspace, { source: name, start: flags.start === true }, run.context());
  const { replacedText } = await import('../recovery.ts');
  return {
    result: { source: name, replaced: done.replaced },
    text: replacedText(name, done.replaced, done.formatPosition, null),
  };
}

/** `16385=/srv/fast` or `/old/place=/srv/fast`; the folder is what follows the last `=`. */
function placesOf(given: readonly string[]): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  for (const text of given) {
    const at = text.lastIndexOf('=');
    const [name, folder] = [text.slice(0, at), text.slice(at + 1)];
    if (at < 1 || folder === '' || places.has(name)) {
      throw new HoldfastError(
        'command.usage',
        `--tablespace ${text} is not NAME=FOLDER, once for each tablespace.`,
        {
          next: 'Give the OID of the tablespace or its folder on the source, e.g. --tablespace 16385=/srv/fast',
        },
      );
    }
    places.set(name, folder);
  }
  return places;
}
