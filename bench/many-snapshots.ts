/** Many tiny snapshots, through the repository's own interface: what `list` has to read after some years. */
import { systemClock } from '../src/core/clock.ts';
import type { RunContext } from '../src/core/context.ts';
import { silentLogger } from '../src/core/log.ts';
import { noProgress } from '../src/core/progress.ts';
import { Secrets } from '../src/core/redaction.ts';
import { writerOf } from '../src/operations/backup.ts';
import { Workspace } from '../src/operations/workspace.ts';

/** Adds `count` snapshots of one small file to `source` in the repository that `config` names. */
export async function makeSnapshots(config: string, source: string, count: number): Promise<void> {
  const workspace = await Workspace.load({ config, secrets: new Secrets() });
  const context: RunContext = {
    signal: new AbortController().signal,
    clock: systemClock,
    log: silentLogger,
    progress: noProgress,
  };
  try {
    const { writer } = await writerOf(workspace, await workspace.repository(context), context);
    for (let number = 0; number < count; number++) {
      const run = await writer.beginSnapshot({ source, kind: 'postgres' }, context);
      const lane = run.lane();
      lane.begin({ path: 'PG_VERSION', type: 'file', mode: 0o600 });
      await lane.write(Buffer.from('15\n'));
      lane.end();
      const position = number.toString(16).toUpperCase().padStart(16, '0');
      const now = Date.now();
      await run.publish({
        lineage: '7000000000000000000/1',
        ancestors: [],
        from: position,
        to: position,
        sourceStarted: now,
        sourceFinished: now,
        meta: {},
        warnings: [],
      });
    }
  } finally {
    await workspace.close();
  }
}
