import { type Command, Option } from 'commander';
import { formatBytes, formatDuration } from '../../core/figures.ts';
import type { VerifyDepth, VerifyReport } from '../../operations/verify.ts';
import { runCommand } from '../run.ts';
import { count, examples } from '../text.ts';

const depths: readonly VerifyDepth[] = ['signatures', 'digests', 'content'];

export function define(command: Command): void {
  command
    .argument('[source]', 'source to verify (default: everything)')
    .addOption(
      new Option(
        '--depth <depth>',
        'signatures: headers and chains; digests: every stored byte; content: decrypt it all, too',
      )
        .choices(depths)
        .default('digests'),
    )
    .addHelpText('after', examples('holdfast verify', 'holdfast verify ledger --depth content'))
    .action(async (source: string | undefined, { depth }: { depth: VerifyDepth }, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { verify } = await import('../../operations/verify.ts');
        const report = await verify(workspace, { source, depth }, run.context());
        const undamaged = report.problems.length === 0;
        return { result: { ...report, undamaged }, text: describe(report), exit: undamaged ? 0 : 5 };
      });
    });
}

function describe(report: VerifyReport): string {
  const { snapshots, logParts, objects, bytes, problems, durationMs, depth } = report;
  const lines = problems.map(({ name, code, message }) => `DAMAGED  ${name}\n         ${message} (${code})`);
  const verdict = problems.length === 0 ? 'All is undamaged' : count(problems.length, 'problem');
  lines.push(
    `${verdict}, as far as ${depth} ${depth === 'content' ? 'tells' : 'tell'}: ${count(snapshots, 'snapshot')}, ${count(logParts, 'log part')}, ${count(objects, 'object')}, ${formatBytes(bytes)} read in ${formatDuration(durationMs)}.`,
  );
  if (problems.length > 0)
    lines.push('Restore from another snapshot or from a copy; keep this repository as it is.');
  else if (depth !== 'content') lines.push('Deeper: holdfast verify --depth content');
  return lines.join('\n');
}
