/** The contract of what shows progress. */
import type { ProgressEvent } from '../core/progress-events.ts';

/** Shows events on one stream, which nobody else may write to while it is open. */
export interface ProgressRenderer {
  show(event: ProgressEvent): void;
  /** Writes other text (a log line, ending in a line break) without tearing the display. */
  print(text: string): void;
  /** Shows the last state and gives the terminal back. Idempotent; nothing is shown afterwards. */
  close(): void;
}

/** The part of a stream that renderers need. `columns` may be 0 or missing. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}
