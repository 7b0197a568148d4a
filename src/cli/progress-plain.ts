/** Progress in a pipe or a log: a line when a step starts and ends, and every ten seconds between. */

import { formatAmount, formatDuration } from '../core/figures.ts';
import type { ProgressEvent } from '../core/progress-events.ts';
import { visible } from './progress-line.ts';
import type { ProgressRenderer, ProgressStream } from './progress-renderer.ts';

const msBetweenLines = 10_000;

export function createPlainRenderer(stream: ProgressStream): ProgressRenderer {
  let open = true;
  const steps = new Map<number, { readonly path: string; lastLineMs: number }>();
  const line = (path: string, text: string) => void stream.write(`${visible(`${path}: ${text}`)}\n`);
  const show = (event: ProgressEvent) => {
    if (!open) return;
    const above = event.parent === null ? undefined : steps.get(event.parent)?.path;
    const step = steps.get(event.id) ?? {
      path: above === undefined ? event.name : `${above} › ${event.name}`,
      lastLineMs: 0,
    };
    steps.set(event.id, step);
    if (event.event === 'start') line(step.path, 'started');
    else if (event.event === 'note') line(step.path, event.text ?? '');
    else if (event.event === 'advance') {
      if (event.ms - step.lastLineMs < msBetweenLines) return;
      step.lastLineMs = event.ms;
      line(step.path, amounts(event));
    } else {
      steps.delete(event.id);
      line(
        step.path,
        event.event === 'done' ? ending(event) : `failed: ${event.error?.message ?? 'unknown'}`,
      );
    }
  };
  return {
    show,
    print: (text) => void stream.write(text),
    close: () => {
      open = false;
    },
  };
}

function amounts({ done, total, unit, ms }: ProgressEvent): string {
  const share =
    total === null || total <= 0
      ? ''
      : ` of ${formatAmount(total, unit)} (${Math.floor((100 * done) / total)} %)`;
  return `${formatAmount(done, unit)}${share} after ${formatDuration(ms)}`;
}

function ending(event: ProgressEvent): string {
  const what = event.text ?? (event.done === 0 ? 'done' : `done, ${formatAmount(event.done, event.unit)}`);
  return `${what} in ${formatDuration(event.ms)}`;
}
