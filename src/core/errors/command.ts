import { defineErrors } from './define.ts';

export const commandErrors = defineErrors({
  'command.usage': {
    exit: 2,
    summary: 'The command line is not one that Holdfast understands.',
    explanation: 'A verb, an option or a value is unknown, missing or malformed. Nothing was done.',
    next: 'See `holdfast --help`, or `holdfast <verb> --help` for one verb.',
  },
  'command.invalid-time': {
    exit: 2,
    summary: 'A time cannot be read as exactly one moment.',
    explanation:
      'Times are read strictly, because a restore to a moment that somebody else meant is worse than none: the text is malformed, or the local time does not exist or exists twice where the clocks change. Nothing was done.',
    next: "Write the time with an offset, e.g. '2026-11-21T14:30:00Z' or '2026-11-21 14:30:00 +02:00', or as an age, e.g. '10m ago'.",
  },
});
