/** Parses the command line and runs the verb that it names. */
import { CommanderError } from 'commander';
import { reportUsage } from './output.ts';
import { buildProgram, loadVerbs } from './program.ts';

/** Sets the exit status. */
export async function runProgram(argv: readonly string[]): Promise<void> {
  const program = buildProgram();
  try {
    await loadVerbs(program, argv);
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? 0 : reportUsage(error, argv, program);
  }
}
