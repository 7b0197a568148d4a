import { defineErrors } from './define.ts';

export const storageErrors = defineErrors({
  'storage.unreachable': {
    exit: 7,
    summary: 'The store of the repository cannot be reached.',
    explanation: 'The folder or endpoint did not answer. Nothing unacknowledged is reported as saved.',
    next: 'Check the address of the repository and its permissions, then run the command again.',
  },
});
