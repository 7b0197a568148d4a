import type { Command } from 'commander';
import { formatBytes } from '../../core/figures.ts';
import { runCommand } from '../run.ts';
import { count, examples } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('[source]', 'whose log to run (default: the only one)')
    .option('--once', 'end when everything up to now is durable')
    .addHelpText('after', examples('holdfast capture', 'holdfast capture ledger --progress json'))
    .action(async (source: string | undefined, options: { once?: boolean }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { capture } = await import('../../operations/capture.ts');
        const done = await capture(workspace, { source, ...options }, run.context());
        const reached = done.durable === null ? 'Nothing was captured' : `Durable to ${done.durable}`;
        const text = `${reached}: ${count(done.parts, 'part')}, ${formatBytes(done.bytes)} of log of ${done.source}.`;
        return { result: done, text };
      });
    });
}
