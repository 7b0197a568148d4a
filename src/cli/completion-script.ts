/** Completion scripts, made from the verbs and options themselves so that they cannot differ from them. */
import type { Command } from 'commander';
import type { Verb } from './verb.ts';

interface Completed {
  readonly verb: string;
  readonly summary: string;
  /** Long options, and the names of verbs below it. */
  readonly words: readonly string[];
}

export async function completionScript(
  shell: 'bash' | 'zsh' | 'fish',
  program: Command,
  verbs: readonly Verb[],
): Promise<string> {
  const globals = longOptions(program);
  const completed: Completed[] = [];
  for (const { name, summary, load } of verbs) {
    const command = program.commands.find((candidate) => candidate.name() === name)!;
    // This verb's own command is defined already.
    if (name !== 'completion') (await load()).define(command, verbs);
    const below = command.commands.flatMap((sub) => [sub.name(), ...longOptions(sub)]);
    completed.push({
      verb: name,
      summary,
      words: [...new Set([...longOptions(command), ...below, ...globals])],
    });
  }
  const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript };
  return scripts[shell](completed, globals);
}

function longOptions(command: Command): string[] {
  return command.options.flatMap(({ long }) => (long === null || long === undefined ? [] : [long]));
}

function bashScript(completed: readonly Completed[], globals: readonly string[]): string {
  const cases = completed.map(({ verb, words }) => `    ${verb}) words='${words.join(' ')}' ;;`);
  const names = completed.map(({ verb }) => verb).join(' ');
  return `_holdfast() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb= words= each
  for each in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $each in -*) ;; *) verb=$each; break ;; esac
  done
  case $verb in
${cases.join('\n')}
    *) words='${names} ${globals.join(' ')}' ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  [ \${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -o filenames -F _holdfast holdfast
`;
}

function zshScript(completed: readonly Completed[], globals: readonly string[]): string {
  const describe = completed.map(({ verb, summary }) => `    '${verb}:${summary.replaceAll("'", "'\\''")}'`);
  const cases = completed.map(({ verb, words }) => `    ${verb}) compadd -- ${words.join(' ')}; _files ;;`);
  return `#compdef holdfast
_holdfast() {
  local -a verbs
  verbs=(
${describe.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    compadd -- ${globals.join(' ')}
    return
  fi
  case $words[2] in
${cases.join('\n')}
  esac
}
compdef _holdfast holdfast
`;
}

function fishScript(completed: readonly Completed[], globals: readonly string[]): string {
  const lines = globals.map((option) => `complete -c holdfast -l ${option.slice(2)}`);
  for (const { verb, summary, words } of completed) {
    lines.push(
      `complete -c holdfast -n __fish_use_subcommand -a ${verb} -d '${summary.replaceAll("'", "\\'")}'`,
    );
    for (const word of words.filter((candidate) => !globals.includes(candidate))) {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-a ${word}`;
      lines.push(`complete -c holdfast -n '__fish_seen_subcommand_from ${verb}' ${what}`);
    }
  }
  return `${lines.join('\n')}\n`;
}
