import { defineErrors } from './define.ts';

export const recoveryErrors = defineErrors({
  'recovery.outside-window': {
    exit: 4,
    summary: 'The moment asked for lies in no recovery window.',
    explanation:
      'A moment can be restored only where a snapshot and a log without gaps lead to it. Holdfast never restores a silently different moment.',
    next: 'Choose one of the nearest moments that the message names, or see all windows with `holdfast list`.',
  },
});
