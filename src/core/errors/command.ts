import { defineErrors } from './define.ts';

export const commandErrors = defineErrors({
  'command.usage': {
    exit: 2,
    summary: 'The command line is not one that Holdfast understands.',
    explanation: 'A verb, an option or a value is unknown, missing or malformed. Nothing was done.',
    next: 'See `holdfast --help`, or `holdfast <verb> --help` for one verb.',
  },
});
