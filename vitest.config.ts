import { defineConfig } from 'vitest/config';

const folders = '{src,test,scripts,bench}';

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
          exclude: ['**/*.it.test.ts', 'test/e2e/**'],
        },
      },
      {
        extends: true,
        test: { name: 'real', include: [`${folders}/**/*.it.test.ts`], exclude: ['test/e2e/**'] },
      },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'] } },
    ],
  },
});
