/**
 * The help of `wal push` and `wal fetch`, and their less common spellings; as PostgreSQL calls them they never come
 * here (`main.ts`).
 */
import type { Command } from 'commander';
import type { GlobalOptions } from '../run.ts';
import { examples } from '../text.ts';

interface WalFlags extends GlobalOptions {
  readonly source?: string;
  readonly others?: boolean;
  readonly ahead?: boolean;
}

export function define(command: Command): void {
  command
    .command('push <path>')
    .summary('store one WAL file: archive_command')
    .description(
      'Stores a WAL file, for archive_command; status 0 only when the repository holds it durably.',
    )
    .option('--source <name>', 'whose log (default: the only PostgreSQL source)')
    .option('--no-others', 'not the files that wait beside it')
    .addHelpText(
      'after',
      examples(
        "archive_command = 'holdfast --config /etc/holdfast.yaml wal push %p'",
        'holdfast wal push pg_wal/00000002.history',
      ),
    )
    .action(async (path: string, _flags: WalFlags, self: Command) => {
      const { runPush } = await import('../wal-run.ts');
      process.exitCode = await runPush({ verb: 'push', operands: [path], ...given(self) });
    });
  command
    .command('fetch <file> <path>')
    .summary('give one WAL file to a recovering server: restore_command')
    .description(
      'Writes a WAL file, for restore_command: status 0 found, 1 proven absent, 126 for every failure.',
    )
    .option('--source <name>', 'whose log (default: the only PostgreSQL source)')
    .option('--no-ahead', 'do not read the following segments ahead')
    .addHelpText(
      'after',
      examples(
        "restore_command = 'holdfast --config /etc/holdfast.yaml wal fetch %f %p'",
        'holdfast wal fetch 00000002.history ./00000002.history',
      ),
    )
    .action(async (file: string, path: string, _flags: WalFlags, self: Command) => {
      const { runFetch } = await import('../wal-run.ts');
      process.exitCode = await runFetch({ verb: 'fetch', operands: [file, path], ...given(self) });
    });
}

function given(command: Command) {
  const { source, config, others, ahead } = command.optsWithGlobals<WalFlags>();
  return { source, config, alone: others === false || ahead === false };
}
