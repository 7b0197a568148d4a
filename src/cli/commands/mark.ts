import type { Command } from 'commander';
import { HoldfastError } from '../../core/errors.ts';
import type { MarkedSource } from '../../operations/mark.ts';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('<name>', 'up to 63 characters, used once for each source')
    .argument('[source...]', 'whose log to name it in (default: all)')
    .option('--wait <seconds>', 'the longest wait for capture to store it', '30')
    .addHelpText(
      'after',
      examples('holdfast mark "before release 42"', 'holdfast restore --name "before release 42" --start'),
    )
    .action(async (name: string, sources: string[], { wait }: { readonly wait: string }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { mark } = await import('../../operations/mark.ts');
        const marked = await mark(workspace, { name, sources, waitMs: seconds(wait) * 1000 }, run.context());
        return {
          result: { name, sources: marked },
          text: marked.flatMap((one) => describe(name, one)).join('\n'),
        };
      });
    });
}

function seconds(text: string): number {
  const value = Number(text);
  if (text !== '' && Number.isFinite(value) && value >= 0 && value <= 86_400) return value;
  throw new HoldfastError('command.usage', `"${text}" is no number of seconds from 0 to 86400.`);
}

function describe(
  name: string,
  { source, position, time, durable, capturing, checked }: MarkedSource,
): string[] {
  const lines = [`"${name}" is ${position} in the log of ${source}, ${time}.`];
  if (durable) lines.push('  It is durable in the repository.');
  else if (capturing) lines.push('  It is not durable yet: capture is behind, and stores it in its order.');
  else {
    lines.push(
      `  It is not durable: no capture of ${source} runs. It can be restored once one has: holdfast capture ${source}`,
    );
  }
  if (!checked) {
    lines.push(
      '  Names set elsewhere were not looked through: this host has no key. A name set twice is refused on restoring.',
    );
  }
  return lines;
}
