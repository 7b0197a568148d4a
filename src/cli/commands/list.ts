import type { Command } from 'commander';
import type { Listing } from '../../operations/list.ts';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('[source]', 'source to list (default: all)')
    .option('-n, --newest <number>', 'show only the newest snapshots of each source (0: all)', '10')
    .addHelpText('after', examples('holdfast list', 'holdfast list ledger --newest 0 --json'))
    .action(async (source: string | undefined, options: { newest: string }, self: Command) => {
      await runCommand(self, async (run) => {
        const newest = await wholeNumber(options.newest);
        const workspace = await run.workspace();
        const { list } = await import('../../operations/list.ts');
        const listing: Listing = await list(workspace, { source }, run.context());
        const { listingJson, listingText } = await import('../listing.ts');
        return {
          result: listingJson(listing),
          text: listingText(listing, newest),
          exit: listing.problems.length > 0 ? 5 : 0,
        };
      });
    });
}

async function wholeNumber(text: string): Promise<number> {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  const { HoldfastError } = await import('../../core/errors.ts');
  throw new HoldfastError('command.usage', `--newest wants a whole number, and "${text}" is none.`);
}
