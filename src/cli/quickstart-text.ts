/** What the quickstart says at its end: what happened as a time line, and what to do next. */
import { delimiter } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatBytes, formatDuration } from '../core/figures.ts';
import type { QuickstartResult } from '../operations/quickstart.ts';
import { indented, table } from './text.ts';

export function quickstartText(result: QuickstartResult): string {
  let at = 0;
  const rows = result.steps.map(({ name, ms, bytes }) => {
    const row = [
      `${(at / 1000).toFixed(1)} s`,
      name,
      formatDuration(ms),
      bytes === null ? '' : formatBytes(bytes),
    ];
    at += ms;
    return row;
  });
  const lines = [
    '',
    `PostgreSQL ${result.postgres}: its tables were dropped at ${result.droppedAt},`,
    `and it came back to ${result.restoredTo}, the second before.`,
    '',
    indented(table(rows, [0, 2, 3])),
    '',
    `  ${result.rowsCompared.toLocaleString('en-US')} rows compared with an independent record: identical. The accounts sum up to ${result.sum}.`,
    `  Snapshot ${formatBytes(result.snapshotBytes)}, stored as ${formatBytes(result.snapshotStoredBytes)}, encrypted; ${formatBytes(result.logBytes)} of log replayed.`,
    '',
    result.folder === null ? 'Everything was cleaned up.' : `Kept in ${result.folder}.`,
    'Next, with your own database:',
    '  export DATABASE_URL=postgres://user@host:5432/app BACKUP_DIR=/var/backups/app',
    '  export BACKUP_ENCRYPTION_KEY="$(openssl rand -base64 24)"    # keep it somewhere else, too',
    ...findable(),
    '  holdfast doctor      what is missing, and what mends it',
    '  holdfast backup      the first snapshot; writes your key kit',
    '  holdfast capture     every change from then on',
  ];
  return lines.join('\n');
}

/** The commands below it are copied as they stand; a fresh checkout is on nobody's PATH. */
function findable(): string[] {
  const folder = fileURLToPath(new URL('../../bin', import.meta.url));
  const known = process.env.PATH?.split(delimiter).includes(folder) === true;
  return known ? [] : [`  export PATH="${folder}:$PATH"`];
}
