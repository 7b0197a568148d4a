/** Asks the person at the terminal for the name of what is about to be replaced. */
import { createInterface } from 'node:readline/promises';
import { checkAnswer, type GuardFacts, guard } from '../operations/guard.ts';
import type { CommandRun } from './run.ts';

/** Resolves when forced or confirmed. Throws `recovery.not-confirmed`. */
export async function confirmed(run: CommandRun, facts: Omit<GuardFacts, 'terminal'>): Promise<void> {
  const terminal = process.stdin.isTTY === true && process.stderr.isTTY === true && run.globals.json !== true;
  if (guard({ ...facts, terminal }) === 'go') return;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const question = `${facts.what} stops the server and exchanges its data. To go on, type ${facts.source}: `;
    checkAnswer(facts, await lines.question(question, { signal: run.signal }));
  } catch (error) {
    // Ctrl-C at the question is an interruption like any other.
    run.signal.throwIfAborted();
    throw error;
  } finally {
    lines.close();
  }
}
