import type { Command } from 'commander';
import type { KeysResult } from '../../operations/key.ts';
import { runCommand } from '../run.ts';
import { examples, indented, table } from '../text.ts';

export function define(command: Command): void {
  const footer = examples(
    'holdfast key list',
    'holdfast key add --passphrase-file new.txt --label second-safe',
  );
  command
    .description('Shows and adds what opens the repository, and writes its key kit.')
    .addHelpText('after', footer);
  defineList(command);
  defineAdd(command);
  defineKit(command);
}

function sub(command: Command, name: string, summary: string): Command {
  return command
    .command(name)
    .description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`)
    .summary(summary)
    .helpOption('-h, --help', 'show help')
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
}

function defineList(command: Command): void {
  sub(command, 'list', 'show who can open the repository')
    .addHelpText('after', examples('holdfast key list', 'holdfast key list --json'))
    .action(async (_options: object, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { listKeys } = await import('../../operations/key.ts');
        const keys = await listKeys(workspace, run.context());
        return { result: keys, text: describe(keys) };
      });
    });
}

function defineAdd(command: Command): void {
  const collect = (value: string, previous: string[]) => [...previous, value];
  sub(command, 'add', 'let one more passphrase, or age recipients, open the repository')
    .option('--passphrase-file <file>', 'file that holds the new passphrase')
    .option('--recipient <age1…>', 'age recipient; may be given several times', collect, [])
    .option('--label <text>', 'what people call it, of a-z, 0-9 and -')
    .addHelpText(
      'after',
      examples(
        'holdfast key add --passphrase-file new.txt',
        'holdfast key add --recipient age1… --label offline',
      ),
    )
    .action(async (options: AddOptions, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { addKey } = await import('../../operations/key.ts');
        const wanted = { ...options, recipients: options.recipient, cwd: run.cwd };
        const key = await addKey(workspace, wanted, run.context());
        return {
          result: key,
          text: `Added the key ${key.id} (${key.type}, "${key.label}"). Write the key kit anew: holdfast key kit`,
        };
      });
    });
}

interface AddOptions {
  readonly passphraseFile?: string;
  readonly recipient: string[];
  readonly label?: string;
}

function defineKit(command: Command): void {
  sub(command, 'kit', 'write the key kit as it is now')
    .option('--to <place>', 'file or folder (default: the current folder); never overwritten')
    .addHelpText('after', examples('holdfast key kit', 'holdfast key kit --to /media/usb-stick'))
    .action(async (options: { to?: string }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { saveKeyKit } = await import('../../operations/key.ts');
        const keyKit = await saveKeyKit(workspace, { to: options.to, cwd: run.cwd }, run.context());
        return { result: { keyKit }, text: `The key kit is in ${keyKit}: keep it outside this machine.` };
      });
    });
}

function describe({ repository, address, keys }: KeysResult): string {
  const rows = keys.map((key) => [key.id, key.type, key.label, `opens ${key.opens.join(' and ')}`]);
  return `Repository ${repository} at ${address}\n${indented(table(rows))}`;
}
