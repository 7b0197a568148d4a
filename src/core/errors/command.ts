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
  'command.which-source': {
    exit: 2,
    summary: 'Several sources could be meant.',
    explanation: 'The command is about one source, and none was named. Nothing was done.',
    next: 'Name one of the sources after the verb.',
  },
  'command.key-kit': {
    exit: 1,
    summary: 'The key kit could not be written.',
    explanation:
      'The key kit is what must be kept outside: without it, or without the passphrase or identity that it tells of, nobody can read the backups. It is written once, only for its owner, and never over another file.',
    next: 'Give another place: `holdfast init --kit <place>`, or `holdfast key kit --to <place>` where the repository exists already.',
  },
  'command.no-program': {
    exit: 2,
    summary: 'A program that the command needs is not on this machine.',
    explanation: 'The quickstart runs a real PostgreSQL. None was found, and none could be installed.',
    next: 'Install PostgreSQL 13 or later (Debian: `apt install postgresql`), or run `npm run quickstart` in a checkout, which brings one.',
  },
  'command.proof-failed': {
    exit: 5,
    summary: 'What came back is not what was there.',
    explanation:
      'The quickstart compares every restored row with its own record of it. A difference is a defect of Holdfast.',
    next: 'Run it again with `--keep`, and report it with the folder that it leaves.',
  },
});
