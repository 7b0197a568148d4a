import { defineErrors } from './define.ts';

export const configErrors = defineErrors({
  'config.invalid': {
    exit: 2,
    summary: 'The configuration has a mistake.',
    explanation:
      'A setting is unknown, missing or malformed; the message names file, line and column, or the environment variable. Nothing was done.',
    next: 'Correct the named lines, then run `holdfast config` to see the effective configuration.',
  },
  'config.unreadable': {
    exit: 2,
    summary: 'A file that the configuration needs cannot be read.',
    explanation:
      'The configuration file, a `.env` or a file that holds a secret is missing, is no plain file or may not be read by this user. Nothing was done.',
    next: 'Check the path and the permissions of the file.',
  },
  'config.none': {
    exit: 2,
    summary: 'Nothing says what to back up, or where to.',
    explanation:
      'Holdfast looks for `--config`, then `$HOLDFAST_CONFIG`, then `holdfast.yaml` in the current folder and those above it, then the environment variables DATABASE_URL, BACKUP_DIR and BACKUP_ENCRYPTION_KEY (also from `.env`). It found too little.',
    next: 'Write a holdfast.yaml, or set DATABASE_URL, BACKUP_DIR and BACKUP_ENCRYPTION_KEY.',
  },
  'config.unsupported-variable': {
    exit: 2,
    summary: 'An environment variable asks for something that this version cannot do.',
    explanation:
      'Without a configuration file Holdfast takes its settings from well-known variables. One that it knows but cannot honour yet is refused by name: ignoring it would leave data without a backup, or a promise unkept, and nobody would notice. Where there is a holdfast.yaml these variables mean nothing to Holdfast.',
    next: 'Unset the variable for this command, or write a holdfast.yaml: then only what it names counts.',
  },
  'config.unknown-source': {
    exit: 2,
    summary: 'No source of that name is configured.',
    explanation:
      'The name given on the command line is not under `sources` in the configuration. Nothing was done.',
    next: 'Run `holdfast config` to see the names of the configured sources.',
  },
  'config.no-key': {
    exit: 2,
    summary: 'This command needs the key of the repository, and none is configured.',
    explanation:
      'Backing up needs no secret that opens backups. Creating a repository, restoring, verifying contents and changing keys do: a passphrase, or an age identity.',
    next: 'Set BACKUP_ENCRYPTION_KEY, or write `passphrase`, `passphraseFile`, `passphraseCommand` or `identityFile` under `key` in the configuration.',
  },
});
