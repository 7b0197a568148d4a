/** Builds `dist/` for the package: JavaScript that any Node.js from 24 on runs. */
import { chmod, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { report, root, runStep } from './run-step.ts';

await rm(join(root, 'dist'), { recursive: true, force: true });
const built = await runStep('build (tsc)', 'tsc', ['-p', 'tsconfig.build.json']);
report(built);
if (!built.ok) process.exit(1);

const main = join(root, 'dist', 'cli', 'main.js');
await chmod(main, 0o644);
// A path to a .ts file in what was built would only fail once it is reached, in the middle of a backup.
const started = await runStep('what was built starts', process.execPath, [main, '--version']);
report(started);
const manifest: unknown = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
const version =
  typeof manifest === 'object' && manifest !== null && 'version' in manifest ? manifest.version : null;
if (started.ok && !started.output.includes(String(version)))
  console.log(`    it says ${started.output.trim()}, not ${version}`);
process.exitCode = started.ok ? 0 : 1;
