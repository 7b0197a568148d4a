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
  'system.process-failed': {
    exit: 1,
    summary: 'A program that Holdfast ran did not end well.',
    explanation:
      'It ended with another status than expected, was ended by a signal, said more than there is room for, or ran longer than its deadline. The message holds the last lines that it wrote.',
    next: 'Read what the program wrote, mend that, then run the command again.',
  },
  'system.process-missing': {
    exit: 2,
    summary: 'A program that Holdfast needs was not found, or may not be run.',
    explanation: 'It is not installed, not on the PATH, or not executable for this user. Nothing was done.',
    next: 'Install the program, or give its full path.',
  },
  'system.disk-full': {
    exit: 1,
    summary: 'A disk of this host is full.',
    explanation:
      'A file could not be written to its end. What was acknowledged before is safe; what was being written is incomplete and marked so.',
    next: 'Make room, or choose a folder on a larger disk, then run the command again.',
  },
  'system.file-failed': {
    exit: 1,
    summary: 'A file could not be written.',
    explanation:
      'The operating system refused; the message holds its reason. What was acknowledged before is safe.',
    next: 'Check permissions and the disk, then run the command again.',
  },
});
