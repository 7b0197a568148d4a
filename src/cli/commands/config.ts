import type { Command } from 'commander';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .addHelpText('after', examples('holdfast config', 'holdfast config --config /etc/holdfast.yaml --json'))
    .action(async (_options: object, self: Command) => {
      await runCommand(self, async (run) => {
        const { configuration } = await run.workspace();
        const { describeConfiguration, maskedConfiguration } = await import('../../core/config-describe.ts');
        return { result: maskedConfiguration(configuration), text: describeConfiguration(configuration) };
      });
    });
}
