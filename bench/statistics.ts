/** Medians, percentiles, spreads. */

export function percentile(values: readonly number[], fraction: number): number {
  if (values.length === 0) throw new Error('no figures were measured');
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(fraction * sorted.length) - 1)]!;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('no figures were measured');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function spreadOf(values: readonly number[]) {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}
