/**
 * `npm test`: the checks, then unit tests, tests on real servers, and end to end. Stops for nothing, so that one
 * run shows all that fails. The last line stands alone: `N passed, N failed, N skipped`.
 *
 * `npm test -- checks unit` runs only these stages, of checks, package, unit, real and e2e.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { check } from './check.ts';
import { report, root, runStep } from './run-step.ts';

interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

const total: Count = { passed: 0, failed: 0, skipped: 0 };
const stages: readonly (readonly [name: string, title: string, run: () => Promise<Count[]>])[] = [
  ['checks', 'Checks', async () => (await check()).map(({ ok }) => one(ok))],
  ['package', 'The package', async () => [await buildPackage()]],
  ['unit', 'Unit tests', async () => [await runProject('unit')]],
  ['real', 'Real servers and disks', async () => [await provision(), await runProject('real')]],
  ['e2e', 'End to end, and disasters', async () => [await runProject('e2e')]],
];
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !stages.some(([stage]) => stage === name));
if (unknown.length > 0) {
  console.log(
    `There is no stage ${unknown.join(', ')}; there are ${stages.map(([stage]) => stage).join(', ')}.`,
  );
  process.exit(2);
}

const folder = await mkdtemp(join(tmpdir(), 'holdfast-test-'));
try {
  for (const [stage, title, run] of stages) {
    if (wanted.length > 0 && !wanted.includes(stage)) continue;
    console.log(`\n── ${title}`);
    for (const count of await run()) add(count);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;

function one(ok: boolean): Count {
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
}

function add(count: Count): void {
  total.passed += count.passed;
  total.failed += count.failed;
  total.skipped += count.skipped;
}

async function buildPackage(): Promise<Count> {
  const built = await runStep('build', process.execPath, ['scripts/build.ts']);
  report(built);
  return one(built.ok);
}

/** Finds or installs the real components before two test processes ask for them at once. Tests count what is missing. */
async function provision(): Promise<Count> {
  const rig = await runStep('components', process.execPath, ['scripts/rig.ts']);
  console.log(rig.output.trimEnd());
  return { passed: 0, failed: 0, skipped: 0 };
}

async function runProject(project: string): Promise<Count> {
  const file = join(folder, `${project}.json`);
  const args = [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ];
  const status = await new Promise<number | null>((resolve) => {
    const child = spawn('vitest', args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', () => resolve(null));
    child.on('close', resolve);
  });
  const result = await readResult(file);
  // A file that does not load, or an error outside any test, fails the run without failing a test.
  if (status !== 0 && result.failed === 0) result.failed = 1;
  return result;
}

async function readResult(file: string): Promise<Count> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    console.log(`The tests left no result: ${String(error)}`);
    return '{}';
  });
  const result: unknown = JSON.parse(text);
  const number = (name: string) => {
    const value: unknown =
      typeof result === 'object' && result !== null ? Reflect.get(result, name) : undefined;
    return typeof value === 'number' ? value : 0;
  };
  return {
    passed: number('numPassedTests'),
    failed: number('numFailedTests'),
    skipped: number('numPendingTests') + number('numTodoTests'),
  };
}
