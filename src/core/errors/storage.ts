import { defineErrors } from './define.ts';

export const storageErrors = defineErrors({
  'storage.unreachable': {
    exit: 7,
    summary: 'The store of the repository cannot be reached.',
    explanation:
      'The folder or endpoint is not there or did not answer; a disk may not be mounted. Nothing unacknowledged is reported as saved.',
    next: 'Check the address of the repository and that its disk is mounted, then run the command again.',
  },
  'storage.timeout': {
    exit: 7,
    summary: 'The store did not answer in time.',
    explanation:
      'Every attempt has a deadline, so that a hung disk or network never hangs a backup. The object may or may not have been stored; repeating the command is safe.',
    next: 'Check the disk or the network under the repository, then run the command again.',
  },
  'storage.full': {
    exit: 1,
    summary: 'The store has no space left, or a quota is used up.',
    explanation:
      'The object was not stored and nothing partial is visible. What had been acknowledged before stays safe.',
    next: 'Free space or raise the quota under the repository, then run the command again.',
  },
  'storage.denied': {
    exit: 1,
    summary: 'The store refuses the rights that this needs.',
    explanation: 'The user or the credentials may not do what was tried. Nothing was changed.',
    next: 'Give this user the right that the message names, then run the command again.',
  },
  'storage.read-only': {
    exit: 1,
    summary: 'The store is mounted read-only.',
    explanation:
      'Nothing can be written there. File systems also turn read-only by themselves after disk errors: read the kernel log.',
    next: 'Look at `dmesg` for disk errors, then remount the file system writable and run the command again.',
  },
  'storage.failed': {
    exit: 1,
    summary: 'The store reported a failure.',
    explanation:
      'A read, a write or an fsync failed. After a failed fsync the written file is thrown away and never counted as saved.',
    next: 'Look at `dmesg` and the health of the disk under the repository before you go on.',
  },
  'storage.not-found': {
    exit: 3,
    summary: 'The store has no object of that name.',
    explanation: 'The object was never stored, was deleted, or the address names another repository.',
    next: 'Check the address of the repository; `holdfast verify` says what is missing.',
  },
  'storage.conflict': {
    exit: 5,
    summary: 'An object of that name exists with other bytes.',
    explanation:
      'Holdfast never overwrites. Names hold the digest of the content or are counted, so that other bytes under the same name mean damage, forging, or two who wrote at once.',
    next: 'Run `holdfast verify --depth digests` to see what is damaged.',
  },
  'storage.bad-name': {
    exit: 1,
    summary: 'A name is not one that a store may hold.',
    explanation:
      'Names are relative, of letters, digits, `.`, `_` and `-`, never with `..`, never in the area of the store itself. Nothing was done.',
    next: 'This is a defect of Holdfast or a forged repository: run `holdfast verify` and report it.',
  },
  'storage.no-links': {
    exit: 4,
    summary: 'The file system has no hard links, so nothing can be published safely on it.',
    explanation:
      'Objects appear at once and never replace one another because they are linked into place. FAT, exFAT and some network file systems cannot do that.',
    next: 'Put the repository on a file system with hard links (ext4, XFS, Btrfs, ZFS, NFS).',
  },
  'storage.unsupported': {
    exit: 2,
    summary: 'The address of the repository is of a kind that is not supported.',
    explanation: 'A repository lives in a folder: a path, or a `file:` URL. Nothing was done.',
    next: 'Give a path such as `/backup/holdfast` or `file:///backup/holdfast`.',
  },
  'storage.digest-mismatch': {
    exit: 5,
    summary: 'The bytes that a store received are not those that were announced.',
    explanation: 'The SHA-256 of the content differs from the one given with it. Nothing was stored.',
    next: 'Run the command again; if it stays, check the memory of this machine.',
  },
});
