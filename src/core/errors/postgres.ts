import { defineErrors } from './define.ts';

export const postgresErrors = defineErrors({
  'postgres.unsupported-version': {
    exit: 4,
    summary: 'The PostgreSQL server is of a version that Holdfast does not support.',
    explanation:
      'PostgreSQL 13 to 18 are supported. Another version may use other file formats or another protocol.',
    next: 'Use a supported PostgreSQL version.',
  },
});
