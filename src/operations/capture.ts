/** Runs the log of one source into the repository until it is told to end. */
import type { RunContext } from '../core/context.ts';
import { formatBytes, formatDuration } from '../core/figures.ts';
import type { CaptureStatus } from '../sources/source.ts';
import { writerOf } from './backup.ts';
import type { Workspace } from './workspace.ts';

export interface CaptureOptions {
  readonly source?: string | undefined;
  /** End by itself once everything up to the source's present position is durable. */
  readonly once?: boolean;
  readonly onStatus?: (status: CaptureStatus) => void;
}

export interface CaptureResult {
  readonly source: string;
  /** Last durable position, as people write it; null when there is none yet. */
  readonly durable: string | null;
  readonly parts: number;
  readonly bytes: number;
  readonly enrolled: string | null;
}

/**
 * Resolves when the signal aborts (everything acknowledged is durable) or, with `once`, when all is in.
 * Throws `repository.busy` while another capture of this source runs on this host.
 */
export async function capture(
  workspace: Workspace,
  options: CaptureOptions,
  context: RunContext,
): Promise<CaptureResult> {
  const source = workspace.source(options.source);
  const repository = await workspace.repository(context, { patient: true });
  const { writer, enrolled } = await writerOf(workspace, repository, context);
  const log = await writer.openLog({ source: source.name, kind: source.kind }, context);
  const step = context.progress.step(`Capture ${source.name}`);
  const report = new CaptureReport((text) => step.note(text));
  let [parts, bytes] = [0, 0];
  try {
    const position = await source.stream({
      ...context,
      progress: step,
      writer: log,
      onStatus: (status) => {
        step.advance(Math.max(0, status.bytes - bytes));
        ({ parts, bytes } = status);
        report.update(status, context.clock.monotonic());
        options.onStatus?.(status);
      },
      ...(options.once === undefined ? {} : { once: options.once }),
    });
    step.done();
    const { format } = workspace.kind(source.kind).positions;
    return {
      source: source.name,
      durable: position === null ? null : format(position),
      parts,
      bytes,
      enrolled,
    };
  } catch (error) {
    step.failed(error);
    throw error;
  } finally {
    await log.close();
  }
}

/** One line for people. */
export function describeCapture(status: CaptureStatus): string {
  const durable = status.durable === null ? 'nothing durable yet' : `durable to ${status.durable}`;
  return `${status.state.replaceAll('-', ' ')}: ${durable}${behind(status)}`;
}

function behind({ state, backlogBytes, lagMs }: CaptureStatus): string {
  if (backlogBytes === 0) return '';
  const bytes = `${formatBytes(backlogBytes)} behind`;
  if (lagMs !== null) return `, ${bytes} (${formatDuration(lagMs)})`;
  return state === 'streaming' ? `, catching up: ${bytes}` : `, ${bytes}`;
}

/** A line when the state changes, and one a minute while it runs. */
class CaptureReport {
  readonly #write: (text: string) => void;
  #state: CaptureStatus['state'] | null = null;
  #writtenAt = 0;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  update(status: CaptureStatus, now: number): void {
    if (status.state === this.#state && now - this.#writtenAt < 60_000) return;
    this.#state = status.state;
    this.#writtenAt = now;
    this.#write(describeCapture(status));
  }
}
