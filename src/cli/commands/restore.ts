import type { Command } from 'commander';
import type { PreparedRestore } from '../../operations/restore.ts';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

interface RestoreFlags {
  readonly at?: string;
  readonly lsn?: string;
  readonly xid?: string;
  readonly name?: string;
  readonly inclusive?: boolean;
  readonly exclusive?: boolean;
  readonly snapshot?: string;
  readonly timeline?: string;
  readonly to?: string;
  readonly start?: boolean;
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
    .option('--exclusive', 'without what is exactly at --at or --xid')
    .option('--inclusive', 'with the record that is at --lsn')
    .option('--timeline <number>', 'the history meant, where several hold the moment')
    .option('--to <folder>', 'a new folder (default: named after source and moment)')
    .option('--start', 'start the server there, replay, leave it running')
    .option('--dry-run', 'print the plan and do nothing')
    .addHelpText(
      'after',
      examples(
        'holdfast restore --at "10m ago" --to ./rescued --start',
        'holdfast restore ledger --at "2026-11-21T14:30:00Z" --dry-run',
      ),
    )
    .action(async (source: string | undefined, flags: RestoreFlags, self: Command) => {
      await runCommand(self, async (run) => {
        const { targetOf } = await import('../restore-target.ts');
        const workspace = await run.workspace();
        const timezone = run.globals.timezone ?? workspace.configuration.timezone;
        const target = targetOf(flags, timezone);
        if (target.kind === 'time')
          run.say(`Target: ${target.inclusive ? '' : 'before '}${target.utc} (UTC).`);
        const { prepareRestore } = await import('../../operations/restore.ts');
        const wanted = { source, target, timeline: flags.timeline, to: flags.to, cwd: run.cwd };
        const context = run.context();
        const prepared: PreparedRestore = await prepareRestore(
          workspace,
          { ...wanted, start: flags.start === true },
          context,
        );
        const { planJson, planText, restoredText } = await import('../recovery.ts');
        const plan = planJson(prepared);
        if (flags.dryRun === true) return { result: { plan, dryRun: true }, text: planText(prepared) };
        run.say(planText(prepared));
        const restored = await prepared.execute(context);
        return { result: { plan, restored }, text: restoredText(restored, prepared.formatPosition) };
      });
    });
}
