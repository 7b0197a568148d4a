/** Texts for people: tables, ages, moments. Sizes and durations are in `core/figures.ts`. */
import { formatDuration } from '../core/figures.ts';

/** Rows as columns, two spaces apart; columns named in `right` are right-aligned. Lines do not end in spaces. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        right.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return rows.map(line).join('\n');
}

/** `3 min 05 s ago`. */
export function age(then: number, now: number): string {
  return now - then < 1000 ? 'just now' : `${formatDuration(now - then)} ago`;
}

/** Milliseconds since 1970 as `2026-11-21T10:15:30Z`. */
export function moment(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}

export function iso(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

/** `1 snapshot`, `3 snapshots`. */
export function count(amount: number, word: string, several = `${word}s`): string {
  // Not toLocaleString: its tables take a tenth of a second to load.
  const digits = String(amount).replaceAll(/\B(?=(\d{3})+$)/g, ',');
  return `${digits} ${amount === 1 ? word : several}`;
}

/** Each line two spaces in. */
export function indented(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '  ');
}

/** The footer of a verb's help: two real examples, and where the global options are told. */
export function examples(...lines: readonly [string, string]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}\n\nWith every verb: --config --repository --json --progress --log-level --timezone`;
}
