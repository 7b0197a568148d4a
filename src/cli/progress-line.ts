/** One step as one line of a terminal. */

import { formatAmount, formatBytes, formatDuration } from '../core/figures.ts';
import type { ProgressEvent } from '../core/progress-events.ts';

/** What a terminal line needs to know about a step. */
export interface StepState {
  readonly event: ProgressEvent;
  readonly depth: number;
  /** Amount a second over the last seconds; null while unknown. */
  readonly rate: number | null;
  /** Since the step's start, ms, as of now. */
  readonly ms: number;
}

export interface Paint {
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  live(text: string): string;
}

const csi = '\u001b[';
const wrap = (code: number) => (text: string) => (text === '' ? '' : `${csi}${code}m${text}${csi}0m`);

export const colors: Paint = { dim: wrap(2), good: wrap(32), bad: wrap(31), live: wrap(36) };
const same = (text: string) => text;
export const noColors: Paint = { dim: same, good: same, bad: same, live: same };

/** Control characters made harmless: names come from servers and files and must not drive the terminal. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
}

const frames = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const barWidth = 20;

/** At most `columns` − 1 characters wide, so that no terminal wraps it. */
export function renderStep(state: StepState, columns: number, frame: number, paint: Paint): string {
  const { event, depth } = state;
  const room = Math.max(columns - 1, 1);
  // Where there is no room, that a step is there matters more than where it hangs.
  const indent = room < 20 ? '' : '  '.repeat(Math.min(depth, 8));
  const [mark, tail] = markAndTail(state, frame, paint, room);
  if (room < 4) return mark;
  const name = visible(event.name);
  const head = `${indent}${' '.repeat(2)}`;
  const fit = fitParts(name, visible(tail.text), room - head.length);
  return `${indent}${mark} ${fit.name}${tail.paint(fit.tail)}`;
}

interface Tail {
  readonly text: string;
  readonly paint: (text: string) => string;
}

function markAndTail(
  state: StepState,
  frame: number,
  paint: Paint,
  room: number,
): [mark: string, tail: Tail] {
  const { event } = state;
  if (event.event === 'failed') {
    return [paint.bad('✖'), { text: event.error?.message.split('\n')[0] ?? 'failed', paint: paint.bad }];
  }
  if (event.event === 'done') {
    const amount = event.text ?? (event.done === 0 ? '' : formatAmount(event.done, event.unit));
    const text = [amount, formatDuration(event.ms)].filter((part) => part !== '').join(' · ');
    return [paint.good('✔'), { text, paint: paint.dim }];
  }
  return [
    paint.live(frames[frame % frames.length] ?? '*'),
    { text: liveFigures(state, room), paint: paint.dim },
  ];
}

function liveFigures({ event, rate, ms }: StepState, room: number): string {
  const { done, total, unit } = event;
  const parts: string[] = [];
  if (total !== null && total > 0) {
    const share = Math.min(done / total, 1);
    const filled = Math.floor(share * barWidth);
    if (room >= 70) parts.push(`${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)}`);
    parts.push(`${Math.floor(share * 100)} %`, `${formatAmount(done, unit)} of ${formatAmount(total, unit)}`);
  } else if (done > 0) parts.push(formatAmount(done, unit));
  if (rate !== null && rate > 0) {
    parts.push(unit === 'bytes' ? `${formatBytes(rate)}/s` : `${Math.round(rate).toLocaleString('en-US')}/s`);
    if (total !== null && total > done) parts.push(`${formatDuration(((total - done) / rate) * 1000)} left`);
  }
  if (parts.length === 0 || total === null) parts.push(formatDuration(ms));
  return parts.join(' · ');
}

function fitParts(name: string, tail: string, room: number): { name: string; tail: string } {
  const cutName = cut(name, room);
  const left = room - cutName.length - 2;
  return { name: cutName, tail: tail === '' || left < 4 ? '' : `  ${cut(tail, left)}` };
}

function cut(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, Math.max(room - 1, 0))}…`.slice(0, Math.max(room, 0));
}
