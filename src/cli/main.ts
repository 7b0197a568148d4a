/**
 * The command line: which verbs there are. Only the verb that runs is loaded, and what is heavy only in its
 * action, so that `--help` answers at once.
 */
import { CommanderError } from 'commander';
import { reportUsage, whenPipeCloses } from './output.ts';
import { buildProgram, loadVerbs } from './program.ts';

whenPipeCloses();
const argv = process.argv.slice(2);
const program = buildProgram();
try {
  await loadVerbs(program, argv);
  await program.parseAsync(argv, { from: 'user' });
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : reportUsage(error, argv, program);
}
