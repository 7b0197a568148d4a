import { defineErrors } from './define.ts';

export const recoveryErrors = defineErrors({
  'recovery.outside-window': {
    exit: 4,
    summary: 'The moment asked for lies in no recovery window.',
    explanation:
      'A moment can be restored only where a snapshot and a log without gaps lead to it. Holdfast never restores a silently different moment.',
    next: 'Choose one of the nearest moments that the message names, or see all windows with `holdfast list`.',
  },
  'recovery.ambiguous-time': {
    exit: 4,
    summary: 'The moment asked for was passed twice, because the clock of the source was set back.',
    explanation:
      'A time means everything that was committed before the first later commit. Where commit times step back by more than a second, one time names two states. Nothing was restored.',
    next: 'Choose one of the two log positions that the message names, with `--lsn`.',
  },
  'recovery.ambiguous-timeline': {
    exit: 4,
    summary: 'Several histories of the source hold the moment asked for, and they differ.',
    explanation:
      'After a restore or a failover a server goes on in a history of its own (a timeline), while the old one may have gone on too. Which of them is meant, only a person can say. Nothing was restored.',
    next: 'Choose one with `--timeline`; `holdfast list` shows when each was written.',
  },
  'recovery.unknown-timeline': {
    exit: 3,
    summary: 'The timeline asked for is not in the repository.',
    explanation: 'No snapshot and no log part of this source belongs to that timeline.',
    next: 'See the timelines with `holdfast list`, and give one of them to `--timeline`, or leave it out.',
  },
  'recovery.unknown-snapshot': {
    exit: 3,
    summary: 'The snapshot asked for is not in the repository, or its id is not unique.',
    explanation: 'A snapshot is named by its id or by enough of its beginning to be the only one.',
    next: 'See the snapshots with `holdfast list`.',
  },
  'recovery.unknown-target': {
    exit: 3,
    summary: 'The transaction or named point asked for is not in the log.',
    explanation:
      'A transaction is found by its commit record, a name by its restore point record, in the log that was captured. A transaction that was rolled back, wrote nothing or was a subtransaction has no commit record. Nothing was restored.',
    next: 'Give a time with `--at`, or a position with `--lsn`; see the windows with `holdfast list`.',
  },
  'recovery.ambiguous-target': {
    exit: 4,
    summary: 'The transaction or named point asked for is in the log several times.',
    explanation:
      'PostgreSQL lets the same restore point name be given twice, and transaction ids come again after a restore or after four thousand million transactions. Which one is meant, only a person can say. Nothing was restored.',
    next: 'Choose by `--lsn` one of the positions that the message names, or a history with `--timeline`.',
  },
  'recovery.name-taken': {
    exit: 4,
    summary: 'The log has a point of that name already.',
    explanation:
      'Recovery would stop at the first of two points with one name, so a name is given once for each source. Nothing was written.',
    next: 'Choose another name.',
  },
  'recovery.unknown-tablespace': {
    exit: 3,
    summary: 'The snapshot has no tablespace of that name.',
    explanation:
      'A tablespace is named by its OID or by its folder on the original server. Nothing was restored.',
    next: 'Name one of those in the message, or leave the option out: tablespaces then go beside the data directory.',
  },
  'recovery.not-confirmed': {
    exit: 4,
    summary: 'A restore in place was not confirmed.',
    explanation:
      'It stops the server and exchanges its data. A terminal asks for the name of the source; where there is none, and always where the configuration says `environment: production`, `--force` is needed. Nothing was changed.',
    next: 'Look at the plan with `--dry-run`, then run it again with `--force`; or restore into a new folder with `--to`.',
  },
  'recovery.place-unusable': {
    exit: 4,
    summary: 'The data directory of the source cannot be replaced in place.',
    explanation:
      'It was not found on this host, is not provably that of this source, belongs to a standby, or this user may not change it. Nothing was changed.',
    next: 'Give the path with `dataDirectory` in the configuration, run as the user that owns it or as root, or restore into a new folder with `--to`.',
  },
  'recovery.not-stopped': {
    exit: 1,
    summary: 'The server could not be stopped or started for a restore in place.',
    explanation:
      'The command that stops or starts it failed, or the server still runs, or does not answer, after it. The message says what lies where: the data are never mixed.',
    next: 'Read what the command said, stop or start the server by hand, and run the restore or `restore --undo` again.',
  },
  'recovery.nothing-to-undo': {
    exit: 3,
    summary: 'There is nothing that a restore in place put aside.',
    explanation:
      'Undo brings back what the last restore in place of this source moved away, and found nothing.',
    next: 'Restore an earlier moment instead; `holdfast list` shows the windows.',
  },
  'recovery.nothing-to-restore': {
    exit: 3,
    summary: 'There is no snapshot to restore.',
    explanation:
      'The repository holds no snapshot of this source. Log alone brings nothing back: it needs a snapshot to start from.',
    next: 'Take a snapshot with `holdfast backup`, or name another source or repository.',
  },
  'recovery.no-server-binaries': {
    exit: 4,
    summary: 'The server programs that fit the data are not on this machine.',
    explanation:
      'Data files can be read only by the same major version of the server that wrote them. Restoring the files alone needs no programs; starting them does.',
    next: 'Install the version that the message names, or restore without `--start`.',
  },
  'recovery.target-not-empty': {
    exit: 4,
    summary: 'The folder to restore into is not empty.',
    explanation: 'Holdfast never writes over existing files. Nothing was written.',
    next: 'Give an empty or new folder with `--to`, or move away what is there.',
  },
  'recovery.target-unusable': {
    exit: 4,
    summary: 'The folder to restore into cannot be used.',
    explanation:
      'It is not absolute, cannot be created, is closed to the user that runs the server, or its disk has too little room. Nothing was restored.',
    next: 'Give another folder with `--to`.',
  },
  'recovery.wal-missing': {
    exit: 5,
    summary: 'Recovery needs a piece of the log that is not there.',
    explanation:
      'A restore replays an unbroken log. The piece named in the message is in no part that was given, so the moment cannot be reached. The unfinished folder cannot be started and may be deleted.',
    next: 'Run `holdfast verify` to see what is missing, then choose another moment with `holdfast list`, or another copy of the repository.',
  },
  'recovery.wal-disagrees': {
    exit: 5,
    summary: 'Two records of the same stretch of log differ.',
    explanation:
      'A snapshot and a log part, or two log parts, cover the same positions with different bytes. One of them belongs to another history, e.g. of a server that was put back to an older state. The unfinished folder cannot be started and may be deleted.',
    next: 'Restore from another snapshot, or to a moment before the positions that the message names.',
  },
  'recovery.wrong-position': {
    exit: 5,
    summary: 'The restored server stopped at another place than planned.',
    explanation:
      'After every replay the position reached is compared with the plan. It did not fit, so the server was stopped and the folder made unstartable: what is in it is not the moment asked for.',
    next: 'Keep the folder for a report, and restore again or to another moment. The message names both positions.',
  },
  'recovery.server-failed': {
    exit: 1,
    summary: 'The restored server ended or stood still during recovery.',
    explanation:
      'The server that replays the log gave up. The message holds the last lines of its log. The folder is unfinished, cannot be started and may be deleted. The repository is not affected.',
    next: 'Read the last lines of the log in the message, mend what they name, and run the restore again into a new folder.',
  },
  'recovery.tablespace-in-log': {
    exit: 4,
    summary: 'The log creates a tablespace after the snapshot.',
    explanation:
      'Replaying the creation would use the folder of the original server, and, on its machine, empty it. Holdfast does not replay it.',
    next: 'Restore from a snapshot taken after the tablespace was created (`--snapshot`), or to a moment before it.',
  },
});
