import type { Command } from 'commander';
import { formatBytes, formatDuration } from '../../core/figures.ts';
import type { BackupResult } from '../../operations/backup.ts';
import { runCommand } from '../run.ts';
import { snapshotJson } from '../snapshot-json.ts';
import { count, examples } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('[source]', 'what to back up (default: the only one)')
    .option('--full', 'store everything again, also what has not changed since the snapshot before')
    .addHelpText('after', examples('holdfast backup', 'holdfast backup ledger --json'))
    .action(async (source: string | undefined, { full }: { readonly full?: boolean }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { backup } = await import('../../operations/backup.ts');
        const done = await backup(workspace, { source, full, cwd: run.cwd }, run.context());
        const { created, enrolled, stats, warnings } = done;
        const result = {
          ...snapshotJson(done.snapshot, done.formatPosition),
          durable: done.address,
          stats,
          warnings,
          created,
          enrolled,
        };
        return { result, text: describe(done) };
      });
    });
}

function describe({ source, address, snapshot, stats, warnings, created, enrolled }: BackupResult): string {
  const lines: string[] = [];
  if (created !== null) {
    lines.push(
      `This was the first backup: created the repository ${created.repository} at ${created.address}.`,
      `The key kit is in ${created.keyKit}: print it, keep it outside this machine, then delete the file.`,
    );
  }
  if (enrolled !== null) lines.push(`This host is now enrolled as a writer, under the name ${enrolled}.`);
  lines.push(
    `Snapshot ${snapshot.id} of ${source} is durable in ${address}.`,
    `  ${formatBytes(stats.bytes)} in ${count(stats.files, 'file')}, ${formatBytes(stats.storedBytes)} stored, ${formatDuration(stats.durationMs)}`,
    ...warnings.map((warning) => `  warning: ${warning}`),
  );
  return lines.join('\n');
}
