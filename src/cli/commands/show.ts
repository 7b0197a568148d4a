import type { Command } from 'commander';
import { formatBytes } from '../../core/figures.ts';
import type { ShownSnapshot } from '../../operations/show.ts';
import { runCommand } from '../run.ts';
import { snapshotJson } from '../snapshot-json.ts';
import { examples, iso, table } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('<snapshot>', 'its id, the beginning of it, or "latest"')
    .option('--source <name>', 'the source that it is of')
    .option('--entries', 'list its files too (needs the key)')
    .addHelpText('after', examples('holdfast show latest', 'holdfast show 20261121T101530Z --entries'))
    .action(async (snapshot: string, options: { source?: string; entries?: boolean }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { show } = await import('../../operations/show.ts');
        const entries: { path: string; type: string; size: number; mode: string }[] = [];
        const onEntry = ({
          path,
          type,
          size,
          mode,
        }: {
          path: string;
          type: string;
          size: number;
          mode: number;
        }) => void entries.push({ path, type, size, mode: mode.toString(8).padStart(4, '0') });
        const wanted = { snapshot, source: options.source };
        const shown = await show(workspace, options.entries ? { ...wanted, onEntry } : wanted, run.context());
        const result = {
          ...snapshotJson(shown.header),
          from: shown.from,
          to: shown.to,
          ancestors: shown.header.ancestors,
          meta: shown.sealed?.meta ?? null,
          warnings: shown.sealed?.warnings ?? null,
          locked: shown.locked === null ? null : { code: shown.locked.code, message: shown.locked.message },
          problems: shown.problems,
          ...(options.entries ? { entries } : {}),
        };
        const files = entries.map(({ path, size, mode }) => [mode, formatBytes(size), path]);
        return { result, text: [describe(shown), table(files, [1])].join('\n') };
      });
    });
}

function describe({ header, from, to, sealed, locked, problems }: ShownSnapshot): string {
  const rows = [
    ['Snapshot', header.id],
    ['Source', `${header.source} (${header.kind})`],
    ['Taken', `${iso(header.started)} to ${iso(header.finished)}`],
    ['Consistent at', `${to}, ${iso(header.sourceFinished)} by the source's clock`],
    ['Log inside', `${from} to ${to}`],
    ['Timeline', header.lineage],
    [
      'Size',
      `${formatBytes(header.bytes)} in ${header.files} files, ${formatBytes(header.storedBytes)} stored`,
    ],
    ['Written by', `${header.writer}, number ${header.sequence}`],
    ['Digest', header.digest],
  ];
  for (const warning of sealed?.warnings ?? []) rows.push(['Warning', warning]);
  if (locked !== null) rows.push(['Locked', `What only the key shows is left out: ${locked.message}`]);
  for (const { name, message } of problems)
    rows.push(['DAMAGED', message.includes(name) ? message : `${name}: ${message}`]);
  const version = sealed?.meta.version;
  if (typeof version === 'number') rows.push(['Server version', String(version)]);
  return table(rows);
}
