import { Argument, type Command } from 'commander';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';
import type { Verb } from '../verb.ts';

export function define(command: Command, verbs: readonly Verb[]): void {
  command
    .addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      examples(
        'source <(holdfast completion bash)',
        'holdfast completion fish > ~/.config/fish/completions/holdfast.fish',
      ),
    )
    .action(async (shell: 'bash' | 'zsh' | 'fish', _options: object, self: Command) => {
      await runCommand(self, async () => {
        const { completionScript } = await import('../completion-script.ts');
        const script = await completionScript(shell, self.parent!, verbs);
        return { result: { shell, script }, text: script };
      });
    });
}
