/** Progress for programs: one event a line, on standard error. */
import type { ProgressRenderer, ProgressStream } from './progress-renderer.ts';

export function createJsonRenderer(stream: ProgressStream): ProgressRenderer {
  let open = true;
  return {
    show: (event) => {
      if (!open) return;
      stream.write(`${JSON.stringify({ schema: 1, ...event, time: new Date(event.time).toISOString() })}\n`);
    },
    print: (text) => void stream.write(text),
    close: () => {
      open = false;
    },
  };
}
