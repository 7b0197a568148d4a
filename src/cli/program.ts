/** The program: global options and the table of verbs. */
import { type Command, Option, program as root } from 'commander';
import { programHelp, verbHelp } from './help.ts';
import type { Verb } from './verb.ts';

export const verbs: readonly Verb[] = [
  verb(
    'quickstart',
    'the whole promise in a minute, in a scratch folder',
    () => import('./commands/quickstart.ts'),
  ),
  verb('init', 'create a repository and its key kit', () => import('./commands/init.ts')),
  verb('config', 'show the effective configuration, secrets masked', () => import('./commands/config.ts')),
  verb('doctor', 'say what is missing or risky, and what mends it', () => import('./commands/doctor.ts')),
  verb('key', 'list and add what opens the repository', () => import('./commands/key.ts')),
  verb('backup', 'take a snapshot now', () => import('./commands/backup.ts')),
  verb('capture', 'run the log: every change, continuously', () => import('./commands/capture.ts')),
  verb('list', 'snapshots, recovery windows and gaps', () => import('./commands/list.ts')),
  verb('show', 'one snapshot in full', () => import('./commands/show.ts')),
  verb('verify', 'check that what is stored is undamaged', () => import('./commands/verify.ts')),
  verb('restore', 'go back to any moment, in a new folder', () => import('./commands/restore.ts')),
  verb('mark', 'name this moment, to come back to', () => import('./commands/mark.ts')),
  verb('wal', 'archive_command and restore_command of PostgreSQL', () => import('./commands/wal.ts')),
  verb('completion', 'print a completion script for your shell', () => import('./commands/completion.ts')),
];

function verb(name: string, summary: string, load: Verb['load']): Verb {
  return { name, summary, load };
}

/** The program with its verbs, none of them loaded yet. */
export function buildProgram(): Command {
  const program = root
    .name('holdfast')
    .description('Backs up the stores behind an application, and takes them back to any second.')
    .usage('<verb> [source] [options]')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .showSuggestionAfterError(true)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });
  addGlobalOptions(program);
  program.configureHelp({ formatHelp: programHelp });
  for (const { name, summary } of verbs) {
    program
      .command(name)
      .summary(summary)
      .description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`)
      .helpOption('-h, --help', 'show help')
      .helpCommand(false)
      .exitOverride()
      .configureHelp({ formatHelp: verbHelp })
      .configureOutput({ writeErr: () => undefined });
  }
  return program;
}

const version = '0.1.0';

/** Options that every verb takes, before or after it. The help of a verb names them in one line only. */
export function addGlobalOptions(command: Command, hidden = false): Command {
  const options = [
    new Option('-c, --config <file>', 'configuration file (default: holdfast.yaml, or the environment)'),
    new Option('--repository <address>', 'repository, instead of the configured one'),
    new Option('--json', 'print one JSON document'),
    new Option('--progress <how>', 'auto, tree, plain, json, none').choices([
      'auto',
      'tree',
      'plain',
      'json',
      'none',
    ]),
    new Option('--log-level <level>', 'debug, info, warn, error').choices(['debug', 'info', 'warn', 'error']),
    new Option('--timezone <zone>', 'zone of times that are given without one'),
  ];
  // The choices are in the descriptions already.
  for (const option of options) command.addOption(hidden ? option.hideHelp() : option);
  return command;
}

/** Loads the verbs that the arguments name; usually one. */
export async function loadVerbs(program: Command, argv: readonly string[]): Promise<void> {
  for (const { name, load } of verbs) {
    if (!argv.includes(name)) continue;
    const command = program.commands.find((candidate) => candidate.name() === name)!;
    (await load()).define(command, verbs);
    for (const one of [command, ...command.commands]) {
      addGlobalOptions(one, true).configureHelp({ formatHelp: verbHelp });
    }
  }
}
