/** What shows progress: picks the way that suits where standard error goes. */
import { type Clock, systemClock } from '../core/clock.ts';
import { noProgress, type Progress } from '../core/progress.ts';
import { createProgress, type ProgressEvent } from '../core/progress-events.ts';
import type { Secrets } from '../core/redaction.ts';
import { createJsonRenderer } from './progress-json.ts';
import { createPlainRenderer } from './progress-plain.ts';
import type { ProgressStream } from './progress-renderer.ts';
import { createTerminalRenderer } from './progress-terminal.ts';

export type ProgressMode = 'auto' | 'terminal' | 'plain' | 'json' | 'none';

export interface ProgressDisplayOptions {
  /** `auto`: live on a terminal, plain lines in a pipe. Default `auto`. */
  readonly mode?: ProgressMode;
  /** Default standard error. */
  readonly stream?: ProgressStream;
  readonly env?: NodeJS.ProcessEnv;
  readonly clock?: Clock;
  readonly secrets?: Secrets;
}

export interface ProgressDisplay {
  readonly progress: Progress;
  /** Use this for everything else that goes to the same stream while the display is open. */
  print(text: string): void;
  /** Call it before the command's last words and on every way out, interruptions included. Idempotent. */
  close(): void;
}

export function openProgressDisplay(options: ProgressDisplayOptions = {}): ProgressDisplay {
  const stream = options.stream ?? process.stderr;
  const env = options.env ?? process.env;
  const clock = options.clock ?? systemClock;
  const secrets = options.secrets;
  // Whole values are redacted, not the finished text: a password that is a number must not tear JSON.
  const clean = (text: string) => (secrets === undefined ? text : secrets.redact(text));
  const mode = chosenMode(options.mode ?? 'auto', stream, env);
  if (mode === 'none') {
    return { progress: noProgress, print: (text) => void stream.write(clean(text)), close: () => undefined };
  }
  const renderer =
    mode === 'json'
      ? createJsonRenderer(stream)
      : mode === 'plain'
        ? createPlainRenderer(stream)
        : createTerminalRenderer(stream, { color: !env.NO_COLOR, clock });
  const giveBack = () => renderer.close();
  // Should a command end in a way that skips `close`, the cursor must not stay hidden.
  process.once('exit', giveBack);
  return {
    progress: createProgress((event) => renderer.show(cleanEvent(event, clean)), clock),
    print: (text) => renderer.print(clean(text)),
    close: () => {
      process.removeListener('exit', giveBack);
      renderer.close();
    },
  };
}

function chosenMode(mode: ProgressMode, stream: ProgressStream, env: NodeJS.ProcessEnv) {
  if (mode !== 'auto') return mode;
  return stream.isTTY === true && env.TERM !== 'dumb' && !env.CI ? 'terminal' : 'plain';
}

/** Names, notes and messages come from servers and files. */
function cleanEvent(event: ProgressEvent, clean: (text: string) => string): ProgressEvent {
  return {
    ...event,
    name: clean(event.name),
    ...(event.text === undefined ? {} : { text: clean(event.text) }),
    ...(event.error === undefined ? {} : { error: { ...event.error, message: clean(event.error.message) } }),
  };
}
