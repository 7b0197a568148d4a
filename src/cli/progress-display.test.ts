import { afterEach, describe, expect, it, vi } from 'vitest';
import { formatBytes, formatDuration } from '../core/figures.ts';
import { Secrets } from '../core/redaction.ts';
import { openProgressDisplay, type ProgressDisplayOptions } from './progress-display.ts';

const escapes = /\u001b\[[0-9;?]*[A-Za-z]/g;

function display(options: ProgressDisplayOptions, shape: { columns?: number; rows?: number } = {}) {
  let text = '';
  const stream = { write: (part: string) => (text += part), isTTY: true, ...shape };
  let time = 0;
  const clock = { now: () => time, monotonic: () => time, sleep: () => Promise.resolve() };
  const opened = openProgressDisplay({ stream, env: {}, clock, ...options });
  return { ...opened, text: () => text, pass: (ms: number) => (time += ms) };
}

/** What a terminal shows after all this, for the few escapes that are used. */
function screen(text: string): string[] {
  const lines: string[] = [''];
  let [row, column] = [0, 0];
  for (const part of text.match(/\u001b\[[0-9;?]*[A-Za-z]|[\s\S]/gu) ?? []) {
    if (part === '\n') [row, column] = [row + 1, 0];
    else if (part === '\r') column = 0;
    else if (part.endsWith('A') && part.length > 1) row -= Number(part.slice(2, -1));
    else if (part === '\u001b[J') lines.splice(row, lines.length, (lines[row] ?? '').slice(0, column));
    else if (part.length === 1) {
      lines[row] =
        (lines[row] ?? '').padEnd(column).slice(0, column) + part + (lines[row] ?? '').slice(column + 1);
      column += 1;
    }
    lines[row] ??= '';
  }
  return lines;
}

afterEach(() => vi.useRealTimers());

describe('on a terminal', () => {
  it('shows a tree with bar, rate and time left, and leaves only the result', () => {
    vi.useFakeTimers();
    const shown = display({ mode: 'terminal' }, { columns: 100, rows: 30 });
    const root = shown.progress.step('backup ledger');
    const copy = root.step('copy', { total: 10 * 1024 * 1024 });
    for (let i = 0; i < 5; i += 1) {
      shown.pass(1000);
      copy.advance(1024 * 1024);
    }
    vi.advanceTimersByTime(200);
    expect(screen(shown.text()).join('\n')).toMatch(
      /backup ledger.*\n {2}. copy {2}█{10}░{10} · 50 % · 5\.0 MiB of 10\.0 MiB · 1\.0 MiB\/s · 5\.0 s left/,
    );
    copy.done();
    root.done('one snapshot');
    shown.close();
    shown.close();
    expect(screen(shown.text())).toEqual([
      '✔ backup ledger  one snapshot · 5.0 s',
      '  ✔ copy  5.0 MiB · 5.0 s',
      '',
    ]);
  });

  it.each([0, 1, 2, 10, 40, 200])('draws lines that fit %d columns, for ever fewer rows', (columns) => {
    vi.useFakeTimers();
    const shown = display({ mode: 'terminal' }, { columns, rows: 3 });
    const root = shown.progress.step(`a long name ${'x'.repeat(300)}`);
    for (let i = 0; i < 20; i += 1) root.step(`child ${i}`, { total: 100 }).advance(5);
    root.note('n'.repeat(300));
    vi.advanceTimersByTime(1000);
    const widest = Math.max(
      ...shown
        .text()
        .replace(escapes, '')
        .split(/[\n\r]/)
        .map((line) => line.length),
    );
    expect(widest).toBeLessThanOrEqual(Math.max((columns || 80) - 1, 1));
    shown.close();
  });

  it('gives the cursor back when it ends in the middle', () => {
    vi.useFakeTimers();
    const shown = display({ mode: 'terminal' });
    shown.progress.step('work');
    expect(shown.text()).toContain('\u001b[?25l');
    shown.close();
    expect(shown.text().endsWith('\n\u001b[?25h')).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('prints other lines above the live part', () => {
    vi.useFakeTimers();
    const shown = display({ mode: 'terminal' });
    const step = shown.progress.step('work');
    shown.print('a log line\n');
    step.done();
    shown.close();
    expect(screen(shown.text())).toEqual(['a log line', '✔ work  0 ms', '']);
  });

  it('uses no colour with NO_COLOR, and never lets a name drive the terminal', () => {
    vi.useFakeTimers();
    const shown = display({ mode: 'terminal', env: { NO_COLOR: '1' } });
    shown.progress.step('evil \u001b[31m\u001b[2J name').done();
    shown.close();
    expect(shown.text().match(/\u001b\[[0-9;]*m/g)).toBeNull();
    expect(shown.text()).not.toContain('\u001b[2J');
  });
});

describe('in a pipe', () => {
  it('writes a line at start and end and every ten seconds', () => {
    const shown = display({ mode: 'plain' });
    const root = shown.progress.step('backup');
    const copy = root.step('copy', { total: 100, unit: 'files' });
    for (let i = 0; i < 25; i += 1) {
      shown.pass(1000);
      copy.advance(1);
    }
    copy.note('slot created');
    copy.done();
    root.failed(new Error('disk full'));
    expect(shown.text().split('\n')).toEqual([
      'backup: started',
      'backup › copy: started',
      'backup › copy: 10 files of 100 files (10 %) after 10.0 s',
      'backup › copy: 20 files of 100 files (20 %) after 20.0 s',
      'backup › copy: slot created',
      'backup › copy: done, 25 files in 25.0 s',
      'backup: failed: disk full',
      '',
    ]);
  });

  it('is chosen where there is no terminal, in CI and on a dumb one', () => {
    for (const env of [{ CI: 'true' }, { TERM: 'dumb' }]) {
      const shown = display({ env });
      shown.progress.step('x');
      expect(shown.text()).toBe('x: started\n');
      shown.close();
    }
  });
});

describe('for programs', () => {
  it('writes one JSON event a line, secrets hidden', () => {
    const secrets = new Secrets();
    secrets.add('hunter22');
    const shown = display({ mode: 'json', secrets });
    shown.progress.step('log in with hunter22').failed(new Error('postgres://u:pw@h/db refused'));
    const events = shown
      .text()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(events).toMatchObject([
      {
        schema: 1,
        event: 'start',
        id: 1,
        parent: null,
        name: 'log in with ***',
        time: '1970-01-01T00:00:00.000Z',
      },
      { schema: 1, event: 'failed', error: { code: null, message: 'postgres://u:***@h/db refused' } },
    ]);
  });
});

describe('secrets', () => {
  it('do not tear the JSON when they are numbers', () => {
    const secrets = new Secrets();
    for (const secret of ['1', '12345']) secrets.add(secret);
    const shown = display({ mode: 'json', secrets });
    shown.progress.step('x', { total: 12345 }).note('1 of 12345');
    const [start, note] = shown
      .text()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(start).toMatchObject({ schema: 1, total: 12345 });
    expect(note.text).toBe('*** of ***');
  });
});

describe('figures', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 KiB'],
    [1024 * 1024 - 1, '1.0 MiB'],
    [13.2 * 1024 ** 3, '13.2 GiB'],
  ])('%d bytes', (bytes, text) => expect(formatBytes(bytes)).toBe(text));
  it.each([
    [0, '0 ms'],
    [4200, '4.2 s'],
    [59_999, '1 min 00 s'],
    [185_000, '3 min 05 s'],
    [7_800_000, '2 h 10 min'],
    [273_600_000, '3 d 4 h'],
  ])('%d ms', (ms, text) => expect(formatDuration(ms)).toBe(text));
});
