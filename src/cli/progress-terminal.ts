/**
 * Progress on a terminal: a live tree of steps with bars, rate and time left.
 *
 * Steps at the root that ended are written once and scroll away with what is below them; only running ones are
 * drawn again, so the live part stays small. Written here because the renderers at hand either draw a fixed list
 * of tasks (ours grows while it runs) or loop for ever on a terminal that says it has no columns.
 */
import type { Clock } from '../core/clock.ts';
import type { ProgressEvent } from '../core/progress-events.ts';
import { colors, noColors, renderStep, visible } from './progress-line.ts';
import type { ProgressRenderer, ProgressStream } from './progress-renderer.ts';

export interface TerminalOptions {
  readonly color: boolean;
  readonly clock: Pick<Clock, 'monotonic'>;
}

interface Node {
  event: ProgressEvent;
  readonly startedAt: number;
  readonly children: number[];
  readonly notes: string[];
  samples: { readonly at: number; readonly done: number }[];
}

const hideCursor = '\u001b[?25l';
const showCursor = '\u001b[?25h';
const msBetweenFrames = 100;
const rateWindowMs = 5000;
const maxNotes = 20;

export function createTerminalRenderer(stream: ProgressStream, options: TerminalOptions): ProgressRenderer {
  const paint = options.color ? colors : noColors;
  const nodes = new Map<number, Node>();
  let roots: number[] = [];
  let [drawn, frame, open] = [0, 0, true];
  let timer: NodeJS.Timeout | undefined;

  // A pty without a size says 0 columns; 80 is what everybody assumes.
  const columns = () => stream.columns || 80;
  const rows = () => stream.rows || 24;

  const lines = (id: number, depth: number): string[] => {
    const node = nodes.get(id);
    if (node === undefined) return [];
    const { event } = node;
    const running = event.event !== 'done' && event.event !== 'failed';
    const ms = running ? options.clock.monotonic() - node.startedAt : event.ms;
    const own = renderStep({ event, depth, ms, rate: rateOf(node) }, columns(), frame, paint);
    const notes = node.notes.map((note) =>
      paint.dim(
        `${columns() < 21 ? '' : '  '.repeat(Math.min(depth + 1, 9))}· ${visible(note)}`.slice(
          0,
          Math.max(columns() - 1, 1),
        ),
      ),
    );
    return [own, ...notes, ...node.children.flatMap((child) => lines(child, depth + 1))];
  };
  const erase = () => {
    if (drawn > 0) stream.write(`\r${drawn > 1 ? `\u001b[${drawn - 1}A` : ''}\u001b[J`);
    drawn = 0;
  };
  const draw = () => {
    const all = roots.flatMap((id) => lines(id, 0));
    // Taller than the screen, the top could never be drawn over again: the newest lines stay.
    const shown = all.slice(-Math.max(rows() - 1, 1));
    if (shown.length > 0) stream.write(shown.join('\n'));
    drawn = shown.length;
  };
  const redraw = () => {
    erase();
    const ended = roots.filter((id) => isEnded(nodes.get(id)));
    for (const id of ended) {
      stream.write(`${lines(id, 0).join('\n')}\n`);
      forget(nodes, id);
    }
    roots = roots.filter((id) => nodes.has(id));
    draw();
  };
  const tick = () => {
    frame += 1;
    redraw();
  };

  return {
    show: (event) => {
      if (!open) return;
      if (timer === undefined) {
        stream.write(hideCursor);
        timer = setInterval(tick, msBetweenFrames);
        // The display must not keep a finished command alive.
        timer.unref();
      }
      if (event.event === 'start') add(nodes, roots, event, options.clock.monotonic());
      const node = nodes.get(event.id);
      if (node === undefined) return;
      update(node, event, options.clock.monotonic());
      // Quick steps would else never be seen; ends are rare enough to be drawn at once.
      if (event.event !== 'advance' && event.event !== 'note') redraw();
    },
    print: (text) => {
      erase();
      stream.write(text.endsWith('\n') ? text : `${text}\n`);
      if (open) draw();
    },
    close: () => {
      if (!open) return;
      open = false;
      if (timer === undefined) return;
      clearInterval(timer);
      redraw();
      stream.write(`${drawn > 0 ? '\n' : ''}${showCursor}`);
      drawn = 0;
    },
  };
}

function add(nodes: Map<number, Node>, roots: number[], event: ProgressEvent, now: number): void {
  nodes.set(event.id, { event, startedAt: now - event.ms, children: [], notes: [], samples: [] });
  const above = event.parent === null ? undefined : nodes.get(event.parent);
  // A step whose parent has ended and scrolled away still deserves to be seen.
  (above === undefined ? roots : above.children).push(event.id);
}

function update(node: Node, event: ProgressEvent, now: number): void {
  if (event.event === 'note') {
    node.notes.push(event.text ?? '');
    if (node.notes.length > maxNotes) node.notes.shift();
    return;
  }
  node.event = event;
  node.samples.push({ at: now, done: event.done });
  const from = node.samples.findIndex(({ at }) => at >= now - rateWindowMs);
  // One sample older than the window stays, so that a stalled step's rate falls instead of vanishing.
  if (from > 1) node.samples = node.samples.slice(from - 1);
}

function rateOf({ samples }: Node): number | null {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || last.at - first.at < 500) return null;
  return ((last.done - first.done) / (last.at - first.at)) * 1000;
}

function isEnded(node: Node | undefined): boolean {
  return node !== undefined && (node.event.event === 'done' || node.event.event === 'failed');
}

function forget(nodes: Map<number, Node>, id: number): void {
  for (const child of nodes.get(id)?.children ?? []) forget(nodes, child);
  nodes.delete(id);
}
