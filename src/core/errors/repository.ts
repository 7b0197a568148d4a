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
  'repository.locked': {
    exit: 2,
    summary: 'A secret is needed for this, and none was given.',
    explanation:
      'Backing up needs no secret, but creating, restoring, verifying content and changing keys do. Nothing was read or changed.',
    next: 'Set `key.passphraseFile` (or passphrase, passphraseCommand, identityFile) in holdfast.yaml, or BACKUP_ENCRYPTION_KEY in the environment.',
  },
  'repository.weak-passphrase': {
    exit: 2,
    summary: 'The passphrase is too short to protect backups.',
    explanation: 'Whoever gets the repository can try passphrases without limit. Nothing was created.',
    next: 'Use at least 8 characters; 20 random ones, or six random words, are good.',
  },
  'repository.bad-recipient': {
    exit: 2,
    summary: 'A recipient is not an age X25519 public key.',
    explanation:
      'Recipients read `age1…`; `age-keygen` prints one beside the secret key. Nothing was created.',
    next: 'Give the line that `age-keygen` printed after "public key:".',
  },
  'repository.exists': {
    exit: 4,
    summary: 'There is a repository already where one was to be created.',
    explanation: 'Nothing is ever overwritten. The repository that is there was not touched.',
    next: 'Use it (`holdfast list`), or choose another folder for the new one.',
  },
  'repository.not-found': {
    exit: 3,
    summary: 'There is no repository at this address.',
    explanation: 'The store answered, but holds no holdfast.json. Nothing was changed.',
    next: 'Check the address (is the disk mounted?), or create a repository with `holdfast init`.',
  },
  'repository.newer-format': {
    exit: 4,
    summary: 'The repository was written by a later version of Holdfast.',
    explanation: 'An older version could misread it, so it does not try. Nothing was changed.',
    next: 'Install a Holdfast of at least the version that wrote it.',
  },
  'repository.not-the-pinned-one': {
    exit: 4,
    summary: 'Another repository than this host has used before is at this address.',
    explanation:
      'It was replaced, re-created or forged, or another disk is mounted there. Writing to it would leave the known one without new backups, and restoring could bring back foreign data.',
    next: 'Mount the right store. If the change was meant, remove the folder of the known repository from the state folder.',
  },
  'repository.writer-not-enrolled': {
    exit: 4,
    summary: 'This host may not write to the repository.',
    explanation:
      'Every host that backs up has a signing key of its own in the roster. This one has none there: it is new, or it lost its state folder. Nothing was written.',
    next: 'Give the passphrase once and run the command again (it enrols the host), or run `holdfast init` for a new repository.',
  },
  'repository.busy': {
    exit: 8,
    summary: 'Another process of this host is doing the same already.',
    explanation: 'Two at once would harm nothing, but waste work. The other one goes on.',
    next: 'Wait until it has ended, or stop it.',
  },
  'repository.state-unusable': {
    exit: 2,
    summary: 'The folder for local state cannot be used.',
    explanation:
      'Holdfast keeps its signing key, its place in the log and its spool there. Nothing was done.',
    next: 'Set HOLDFAST_STATE (or `state:` in holdfast.yaml) to a folder that this user may write.',
  },
  'repository.reuse-expired': {
    exit: 1,
    summary: 'A backup ran so long that what it took over from the snapshot before is no longer safe to use.',
    explanation:
      'Data of an earlier snapshot may be taken over only within the reuse period (14 days less a day); after that garbage collection may remove it. Nothing was published; earlier snapshots are safe.',
    next: 'Run the backup again: it stores everything once.',
  },
});
