import type { Command } from 'commander';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .option('--kit <place>', 'file or folder for the key kit (default: the current folder)')
    .option('--writer <name>', 'name of this host in the repository (default: its host name)')
    .addHelpText('after', examples('holdfast init', 'holdfast init --kit /media/usb-stick'))
    .action(async (options: { kit?: string; writer?: string }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { init } = await import('../../operations/init.ts');
        const made = await init(workspace, { ...options, cwd: run.cwd }, run.context());
        const text = [
          `Created the repository ${made.repository} at ${made.address}.`,
          `This host writes to it as ${made.writer}.`,
          `The key kit is in ${made.keyKit}: print it, keep it outside this machine, then delete the file.`,
          'Next: holdfast backup',
        ];
        return { result: made, text: text.join('\n') };
      });
    });
}
