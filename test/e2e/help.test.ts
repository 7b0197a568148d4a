/** Help fits a screen, shows two real examples, and answers at once. */
import { expect, test } from 'vitest';
import { run } from './scene.test-helper.ts';

const options = { cwd: import.meta.dirname };
const verbs =
  'quickstart init config doctor key backup capture list show verify restore mark completion'.split(' ');

test.each([[''], ...verbs.map((verb) => [verb]), ['key list'], ['key add'], ['key kit']])(
  '%s --help',
  async (verb) => {
    const { status, stdout } = await run([...verb.split(' ').filter(Boolean), '--help'], options);
    expect(status).toBe(0);
    const lines = stdout.trimEnd().split('\n');
    // Every line of the table says what its term does.
    expect(stdout).not.toMatch(/^ {2}help\b/m);
    expect(lines.length).toBeLessThanOrEqual(24);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(lines.filter((line) => /^ {2}(holdfast|source) .*/.test(line)).length).toBeGreaterThanOrEqual(2);
  },
);

test.each(['bash', 'zsh', 'fish'])('completion for %s knows every verb', async (shell) => {
  const { status, stdout } = await run(['completion', shell], options);
  expect(status).toBe(0);
  for (const verb of verbs) expect(stdout).toContain(verb);
  expect(stdout).toMatch(/dry-run/);
});

test('no arguments show the help, and fail', async () => {
  const told = await run([], options);
  expect(told.status).toBe(2);
  expect(told.stdout + told.stderr).toContain('Usage: holdfast');
});
