/** What a benchmark yields, and how it is printed and judged. */
import { spreadOf } from './statistics.ts';

/** Ours against a peer, medians. `ratio` is peer / ours: above 1 we are faster. Milliseconds, MiB, bytes. */
export interface ComparisonRow {
  readonly case: string;
  readonly ours_ms: number;
  readonly peer: string;
  readonly peer_ms: number;
  readonly ratio: number;
  /** Least ratio that is asked for; null for a figure that is only told. */
  readonly must: number | null;
  /** Peak PSS over all processes of each side. */
  readonly ours_mib: number | null;
  readonly peer_mib: number | null;
  /** Size of what was worked on. */
  readonly bytes: number | null;
  readonly ours_stored: number | null;
  readonly peer_stored: number | null;
  readonly runs: number;
  /** Least and most of the single runs. */
  readonly ours_spread: readonly [number, number];
  readonly peer_spread: readonly [number, number];
  /** CPU seconds of each side's processes. */
  readonly ours_cpu_s: number | null;
  readonly peer_cpu_s: number | null;
}

/** A figure with an absolute limit. */
export interface LimitRow {
  readonly case: string;
  readonly value: number;
  readonly unit: string;
  /** Null for a figure that is only told. */
  readonly at_most: number | null;
  readonly runs: number;
  readonly spread: readonly [number, number];
}

export type Row = ComparisonRow | LimitRow;

export function limitRow(
  name: string,
  values: readonly number[],
  unit: string,
  atMost: number | null,
): LimitRow {
  const { median, least, most } = spreadOf(values);
  return {
    case: name,
    value: rounded(median),
    unit,
    at_most: atMost,
    runs: values.length,
    spread: [rounded(least), rounded(most)],
  };
}

/** As `limitRow`, but the worst run counts: peaks and longest waits have no good median. */
export function worstRow(
  name: string,
  values: readonly number[],
  unit: string,
  atMost: number | null,
): LimitRow {
  return { ...limitRow(name, values, unit, atMost), value: rounded(Math.max(...values)) };
}

export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

/** Why a row misses what it must reach; null when it does not. */
export function missOf(row: Row): string | null {
  if ('ratio' in row) {
    if (row.must === null || row.ratio >= row.must) return null;
    return `${row.case}: ${row.ratio} × ${row.peer}, must be at least ${row.must} ×`;
  }
  if (row.at_most === null || row.value <= row.at_most) return null;
  return `${row.case}: ${row.value} ${row.unit}, must be at most ${row.at_most} ${row.unit}`;
}

/** One row as a line for people. */
export function lineOf(row: Row): string {
  const verdict = missOf(row) === null ? '' : '   MISSED';
  if ('ratio' in row) {
    const must = row.must === null ? '' : ` (must ≥ ${row.must})`;
    const figures = [
      `ours ${row.ours_ms} ms [${row.ours_spread.join('–')}]`,
      `${row.peer} ${row.peer_ms} ms [${row.peer_spread.join('–')}]`,
      pair('CPU s', row.ours_cpu_s, row.peer_cpu_s),
      pair('MiB peak', row.ours_mib, row.peer_mib),
      pair('stored', row.ours_stored, row.peer_stored),
      `${row.runs} runs`,
    ];
    return `${row.case}: ${row.ratio} ×${must}${verdict}\n    ${figures.filter((text) => text !== '').join('; ')}`;
  }
  const most = row.at_most === null ? '' : ` (must ≤ ${row.at_most})`;
  return `${row.case}: ${row.value} ${row.unit}${most}${verdict}   [${row.spread.join('–')}], ${row.runs} runs`;
}

function pair(what: string, ours: number | null, peer: number | null): string {
  return ours === null && peer === null ? '' : `${what} ${ours ?? '–'} / ${peer ?? '–'}`;
}
