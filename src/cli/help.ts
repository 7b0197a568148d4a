/** Help that fits a screen of 24 lines by 80 columns. */
import type { Command, Help } from 'commander';

/** For the program: the verbs, and what every verb takes. */
export function programHelp(command: Command, help: Help): string {
  const verbs = help.visibleCommands(command).map((verb) => [verb.name(), verb.summary()] as const);
  return [
    'Usage: holdfast <verb> [source] [options]      (details: holdfast <verb> --help)',
    command.description(),
    '',
    ...columns(verbs),
    '',
    'With every verb:  -h, --help  -V, --version',
    '  -c, --config <file>  --repository <address>  --json  --timezone <zone>',
    '  --progress auto|tree|plain|json|none  --log-level debug|info|warn|error',
    'Examples:',
    '  holdfast backup',
    '  holdfast restore --at "10m ago" --to ./rescued --start',
    '',
  ].join('\n');
}

/** For a verb: its arguments, options and verbs below it. */
export function verbHelp(command: Command, help: Help): string {
  const subcommands = help.visibleCommands(command).map((verb) => [verb.name(), verb.summary()] as const);
  const options = help.visibleOptions(command).filter(({ long }) => long !== '--help');
  const rows = [
    ...help.visibleArguments(command).map((one) => [help.argumentTerm(one), one.description] as const),
    ...options.map((one) => [help.optionTerm(one), one.description] as const),
    ...subcommands,
  ];
  const lines = [`Usage: ${help.commandUsage(command)}`, command.description()];
  if (rows.length > 0) lines.push('', ...columns(rows));
  return `${lines.join('\n')}\n`;
}

/** Two columns within 80; a description that is too long goes on below itself. */
function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([term]) => term.length));
  return rows.flatMap(([term, text]) =>
    wrap(text, 80 - width - 4).map((line, index) => `  ${(index === 0 ? term : '').padEnd(width)}  ${line}`),
  );
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
