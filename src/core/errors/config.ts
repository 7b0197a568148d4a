import { defineErrors } from './define.ts';

export const configErrors = defineErrors({
  'config.invalid': {
    exit: 2,
    summary: 'The configuration has a mistake.',
    explanation: 'A setting is unknown, missing or malformed; the message names file, line and column. Nothing was done.',
    next: 'Correct the named lines, then run `holdfast config` to see the effective configuration.',
  },
});
