/** `npm run check`: format and lint, types, layers, generated pages; all at once, in seconds. */
import { pathToFileURL } from 'node:url';
import { report, runStep, type StepResult } from './run-step.ts';

/** Runs every check and shows each result as it comes. */
export async function check(): Promise<StepResult[]> {
  const node = process.execPath;
  const steps = [
    runStep('format and lint (biome)', 'biome', ['ci', '--colors=off', '.']),
    runStep('types (tsc)', 'tsc', ['-p', '.']),
    runStep('layers', node, ['scripts/check-layers.ts']),
    runStep('generated pages', node, ['scripts/generate-docs.ts', '--check']),
  ];
  for (const step of steps) void step.then(report);
  return Promise.all(steps);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const results = await check();
  process.exitCode = results.every(({ ok }) => ok) ? 0 : 1;
}
