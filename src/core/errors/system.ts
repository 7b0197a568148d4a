import { defineErrors } from './define.ts';

export const systemErrors = defineErrors({
  'system.interrupted': {
    exit: 130,
    summary: 'The command was interrupted.',
    explanation: 'A signal ended it. What was acknowledged stays; what was unfinished is harmless.',
    next: 'Run the command again when it suits.',
  },
  'system.internal': {
    exit: 1,
    summary: 'Something happened that Holdfast did not foresee.',
    explanation: 'This is a defect of Holdfast. Data that was acknowledged is not affected.',
    next: 'Report it with the output of the same command run with `--log-level debug`.',
  },
});
