/** Writes the pages that are generated: docs/errors.md and docs/configuration.md. `--check`: only compares. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { configurationPage } from './configuration-page.ts';
import { errorsPage } from './errors-page.ts';

const docs = join(import.meta.dirname, '..', 'docs');

/** Settings schemas by kind, from the one file that knows every kind. */
async function kindSettings(): Promise<Record<string, z.ZodType>> {
  const { sourceKinds } = await import('../src/sources/open.ts');
  return Object.fromEntries(
    Object.entries(sourceKinds).map(([name, kind]) => {
      const settings: unknown = kind.settings;
      if (!(settings instanceof z.ZodType)) throw new Error(`the settings of ${name} are no zod schema`);
      return [name, settings];
    }),
  );
}

const pages: Readonly<Record<string, string>> = {
  'errors.md': errorsPage(),
  'configuration.md': configurationPage(await kindSettings()),
};

for (const [name, text] of Object.entries(pages)) {
  const path = join(docs, name);
  const current = existsSync(path) ? readFileSync(path, 'utf8') : '';
  if (current === text) continue;
  if (process.argv.includes('--check')) {
    console.log(`docs/${name} is not what the code says now. Run: npm run docs`);
    process.exitCode = 1;
  } else {
    writeFileSync(path, text);
    console.log(`docs/${name} written`);
  }
}
