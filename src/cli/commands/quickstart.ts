import type { Command } from 'commander';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .option('--keep', 'leave the scratch folder, with everything in it')
    .addHelpText('after', examples('holdfast quickstart', 'holdfast quickstart --keep --json'))
    .action(async (options: { keep?: boolean }, self: Command) => {
      await runCommand(self, async (run) => {
        const { quickstart } = await import('../../operations/quickstart.ts');
        const told = await quickstart({ keep: options.keep === true, secrets: run.secrets }, run.context());
        const { quickstartText } = await import('../quickstart-text.ts');
        return { result: told, text: quickstartText(told) };
      });
    });
}
