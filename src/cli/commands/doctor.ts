import type { Command } from 'commander';
import type { DoctorReport } from '../../operations/doctor.ts';
import { runCommand } from '../run.ts';
import { examples } from '../text.ts';

export function define(command: Command): void {
  command
    .argument('[source]', 'source to look at (default: all)')
    .addHelpText('after', examples('holdfast doctor', 'holdfast doctor ledger --json'))
    .action(async (source: string | undefined, _options: object, self: Command) => {
      await runCommand(self, async (run) => {
        const workspace = await run.workspace();
        const { doctor } = await import('../../operations/doctor.ts');
        const report = await doctor(workspace, { source }, run.context());
        return { result: report, text: describe(report), exit: report.healthy ? 0 : 1 };
      });
    });
}

const marks = { ok: 'ok     ', note: 'note   ', warning: 'warning', problem: 'PROBLEM' } as const;

function describe(report: DoctorReport): string {
  const lines: string[] = [];
  for (const { subject, findings } of report.examinations) {
    lines.push(subject);
    for (const { level, message, remedy } of findings) {
      lines.push(`  ${marks[level]}  ${message}`);
      for (const line of remedy?.split('\n') ?? []) lines.push(`           → ${line}`);
    }
    lines.push('');
  }
  lines.push(report.healthy ? 'Nothing stands in the way.' : 'Mend what is marked PROBLEM, then look again.');
  return lines.join('\n');
}
