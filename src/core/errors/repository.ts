import { defineErrors } from './define.ts';

export const repositoryErrors = defineErrors({
  'repository.damaged': {
    exit: 5,
    summary: 'An object of the repository is damaged, forged or not the one that was written.',
    explanation:
      'A digest, a signature or an authentication tag does not match. Damaged data is never restored.',
    next: 'Run `holdfast verify --depth digests` to see all that is damaged, and restore from another snapshot or a copy.',
  },
  'repository.wrong-key': {
    exit: 4,
    summary: 'The secret given does not open this repository.',
    explanation: 'The passphrase or identity opens none of the wrapped keys. Nothing was read or changed.',
    next: 'Use the passphrase or age identity of this repository; its key kit says which.',
  },
});
