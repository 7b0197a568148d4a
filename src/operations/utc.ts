/** Times as Holdfast prints them: ISO 8601 in UTC, with as many digits as there are facts. Pure. */

/** Microseconds since 1970 as `2026-11-21T10:15:30.123456Z`. */
export function formatMicros(micros: bigint): string {
  const milliseconds = micros / 1000n - (micros % 1000n < 0n ? 1n : 0n);
  const rest = micros - milliseconds * 1000n;
  const text = new Date(Number(milliseconds)).toISOString();
  return `${text.slice(0, -1)}${rest.toString().padStart(3, '0')}Z`;
}
