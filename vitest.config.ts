import { defineConfig } from 'vitest/config';

const folders = '{src,scripts,bench}';

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: [`${folders}/**/*.test.ts`],
          exclude: ['**/*.it.test.ts'],
        },
      },
      {
        extends: true,
        test: { name: 'real', include: [`${folders}/**/*.it.test.ts`] },
      },
      { extends: true, test: { name: 'e2e', include: ['test/**/*.test.ts'] } },
    ],
  },
});
