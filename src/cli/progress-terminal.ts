/**
 * Progress on a terminal: a live tree of steps with bars, rate and time left.
 *
 * Steps at the root that ended are written once and scroll away with what is below them; only running ones are
 * drawn again, so the live part stays small. Written here because the renderers at hand either draw a fixed list
 * of tasks (ours grows while it runs) or loop for ever on a terminal that says it has no columns.
 */
import type { Clock } from '../core/clock.ts';
import type { ProgressEvent } from '../core/progress-events.ts';
import { colors, noColors, type Paint, renderStep, visible } from './progress-line.ts';
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
  const screen = new LiveScreen(stream, options);
  return {
    show: (event) => screen.show(event),
    print: (text) => screen.print(text),
    close: () => screen.close(),
  };
}

class LiveScreen {
  readonly #stream: ProgressStream;
  readonly #clock: TerminalOptions['clock'];
  readonly #paint: Paint;
  readonly #nodes = new Map<number, Node>();
  #roots: number[] = [];
  /** Lines of the live part that stand on the screen. */
  #drawn = 0;
  #frame = 0;
  #open = true;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: ProgressStream, { color, clock }: TerminalOptions) {
    this.#stream = stream;
    this.#clock = clock;
    this.#paint = color ? colors : noColors;
  }

  show(event: ProgressEvent): void {
    if (!this.#open) return;
    if (this.#timer === undefined) {
      this.#stream.write(hideCursor);
      this.#timer = setInterval(() => this.#tick(), msBetweenFrames);
      // The display must not keep a finished command alive.
      this.#timer.unref();
    }
    const now = this.#clock.monotonic();
    if (event.event === 'start') add(this.#nodes, this.#roots, event, now);
    const node = this.#nodes.get(event.id);
    if (node === undefined) return;
    update(node, event, now);
    // Quick steps would else never be seen; ends are rare enough to be drawn at once.
    if (event.event !== 'advance' && event.event !== 'note') this.#redraw();
  }

  print(text: string): void {
    this.#erase();
    this.#stream.write(text.endsWith('\n') ? text : `${text}\n`);
    if (this.#open) this.#draw();
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#redraw();
    this.#stream.write(`${this.#drawn > 0 ? '\n' : ''}${showCursor}`);
    this.#drawn = 0;
  }

  // A pty without a size says 0 columns; 80 is what everybody assumes.
  get #columns(): number {
    return this.#stream.columns || 80;
  }

  #tick(): void {
    this.#frame += 1;
    this.#redraw();
  }

  #redraw(): void {
    this.#erase();
    for (const id of this.#roots.filter((root) => isEnded(this.#nodes.get(root)))) {
      this.#stream.write(`${this.#lines(id, 0).join('\n')}\n`);
      forget(this.#nodes, id);
    }
    this.#roots = this.#roots.filter((id) => this.#nodes.has(id));
    this.#draw();
  }

  #erase(): void {
    const length = this.#drawn;
    if (length > 0) this.#stream.write(`\r${length > 1 ? `\u001b[${length - 1}A` : ''}\u001b[J`);
    this.#drawn = 0;
  }

  #draw(): void {
    const all = this.#roots.flatMap((id) => this.#lines(id, 0));
    // Taller than the screen, the top could never be drawn over again: the newest lines stay.
    const shown = all.slice(-Math.max((this.#stream.rows || 24) - 1, 1));
    if (shown.length > 0) this.#stream.write(shown.join('\n'));
    this.#drawn = shown.length;
  }

  #lines(id: number, depth: number): string[] {
    const node = this.#nodes.get(id);
    if (node === undefined) return [];
    const { event } = node;
    const columns = this.#columns;
    const ms = isEnded(node) ? event.ms : this.#clock.monotonic() - node.startedAt;
    const own = renderStep({ event, depth, ms, rate: rateOf(node) }, columns, this.#frame, this.#paint);
    const indent = columns < 21 ? '' : '  '.repeat(Math.min(depth + 1, 9));
    const notes = node.notes.map((note) =>
      this.#paint.dim(`${indent}· ${visible(note)}`.slice(0, Math.max(columns - 1, 1))),
    );
    return [own, ...notes, ...node.children.flatMap((child) => this.#lines(child, depth + 1))];
  }
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
