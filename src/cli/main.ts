/**
 * The command line: which verbs there are. Only the verb that runs is loaded, and what is heavy only in its
 * action, so that `--help` answers at once. `wal push` and `wal fetch` load not even the program.
 */
import { whenPipeCloses } from './output.ts';
import { walArguments } from './wal-arguments.ts';

whenPipeCloses();
const argv = process.argv.slice(2);
const wal = walArguments(argv);
if (wal === undefined) {
  const { runProgram } = await import('./run-program.ts');
  await runProgram(argv);
} else {
  const { runAhead, runFetch, runPush } = await import('./wal-run.ts');
  process.exitCode = await { push: runPush, fetch: runFetch, ahead: runAhead }[wal.verb](wal);
}
