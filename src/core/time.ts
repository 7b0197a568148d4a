/** Times as people write them, read strictly: each text means exactly one moment, or is refused. */
import { HoldfastError, isHoldfastError } from './errors.ts';

/** A moment, to the microsecond. */
export interface Instant {
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly micros: bigint;
  /** The same in ISO 8601, UTC; show it to people before anything happens. */
  readonly utc: string;
}

export interface ParseInstantOptions {
  /** IANA name by which times without a zone are read. */
  readonly timezone: string;
  /** What `ago` counts from, in ms since 1970. Default: the system's clock. */
  readonly now?: number;
}

/**
 * Reads `2026-11-21T14:30:00.123456Z`, `2026-11-21 14:30[:00[.123456]]` followed by an offset, by a zone name or
 * by nothing (then the configured zone counts), or an age: `30s ago`, `10m ago`, `2h ago`, `3d ago`.
 * @throws `command.invalid-time` for anything else, for dates that do not exist, and for local times that do not
 * exist or exist twice where clocks change; the latter two name both readings.
 */
export function parseInstant(text: string, options: ParseInstantOptions): Instant {
  const trimmed = text.trim();
  const age = /^(\d{1,9}) ?(s|m|h|d) ago$/.exec(trimmed);
  if (age !== null) {
    const now = BigInt(Math.floor(options.now ?? Date.now())) * 1000n;
    return instant(now - BigInt(age[1] ?? '0') * (unitMicros[age[2] ?? ''] ?? 0n));
  }
  const match =
    /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?)(?: ?(Z|[+-]\d{2}(?::?\d{2})?)| +([A-Za-z][\w+/-]*))?$/.exec(
      trimmed,
    );
  if (match === null) throw refused(text, explainMalformed(trimmed));
  const [, year, month, day, hour, minute, second, fraction, offset, zone] = match;
  const fields = [year, month, day, hour, minute, second ?? '0'].map(Number) as Fields;
  checkFields(text, fields);
  if (fraction !== undefined && fraction.length > 6) {
    throw refused(text, 'it is finer than microseconds');
  }
  const local = epochSeconds(fields);
  const seconds =
    offset === undefined
      ? resolveLocal(text, local, zone ?? options.timezone)
      : local - offsetSeconds(text, offset);
  return instant(BigInt(seconds) * 1_000_000n + BigInt((fraction ?? '').padEnd(6, '0')));
}

/** ISO 8601 in UTC; with six digits of fraction unless the moment is a whole second. */
export function formatInstant(micros: bigint): string {
  const fraction = ((micros % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = (micros - fraction) / 1_000_000n;
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, -5);
  return fraction === 0n ? `${whole}Z` : `${whole}.${fraction.toString().padStart(6, '0')}Z`;
}

type Fields = [year: number, month: number, day: number, hour: number, minute: number, second: number];

const unitMicros: Readonly<Record<string, bigint>> = {
  s: 1_000_000n,
  m: 60_000_000n,
  h: 3_600_000_000n,
  d: 86_400_000_000n,
};

function instant(micros: bigint): Instant {
  return { micros, utc: formatInstant(micros) };
}

function refused(text: string, why: string, next?: string): HoldfastError {
  return new HoldfastError(
    'command.invalid-time',
    `'${text}' cannot be read as one moment: ${why}.`,
    next === undefined ? {} : { next },
  );
}

function explainMalformed(text: string): string {
  if (/^\d{4}-\d{2}-\d{2}$/.test(text)) return 'it is a whole day; add the time of day, e.g. 14:30:00';
  if (/ago/.test(text)) return "an age is a whole number and one of s, m, h, d, e.g. '10m ago'";
  if (/^\d+(\.\d+)?$/.test(text)) return 'a bare number has no unit; write a date and a time of day';
  if (/^\d{1,2}:\d{2}/.test(text)) return 'the date is missing';
  return 'it is not of the form YYYY-MM-DD HH:MM:SS, with a zone or offset after it';
}

function checkFields(text: string, [year, month, day, hour, minute, second]: Fields): void {
  const daysInMonth = new Date(Date.UTC(year, month, 0)).getUTCDate();
  if (year < 1970) throw refused(text, 'it lies before 1970');
  if (month < 1 || month > 12) throw refused(text, `there is no month ${month}`);
  if (day < 1 || day > daysInMonth) throw refused(text, `that month has no day ${day}`);
  if (hour > 23) throw refused(text, `there is no hour ${hour}`);
  if (minute > 59) throw refused(text, `there is no minute ${minute}`);
  // Neither PostgreSQL nor Node counts leap seconds, so :60 would silently mean the next minute.
  if (second > 59) throw refused(text, `there is no second ${second}`);
}

function epochSeconds([year, month, day, hour, minute, second]: Fields): number {
  return Date.UTC(year, month - 1, day, hour, minute, second) / 1000;
}

function offsetSeconds(text: string, offset: string): number {
  if (offset === 'Z') return 0;
  const hours = Number(offset.slice(1, 3));
  const minutes = Number(offset.slice(3).replace(':', '') || '0');
  if (hours > 15 || minutes > 59) throw refused(text, `there is no offset ${offset}`);
  return (offset.startsWith('-') ? -1 : 1) * (hours * 3600 + minutes * 60);
}

/** The moment at which the clocks of `zone` show `local` (wall time counted as though it were UTC), in s. */
function resolveLocal(text: string, local: number, zone: string): number {
  const format = zoneFormat(text, zone);
  // Offsets in force around that day; one more than two only where a zone changed twice within two days.
  const offsets = [...new Set([-24, -12, 0, 12, 24].map((hours) => offsetAt(format, local + hours * 3600)))];
  const moments = offsets
    .map((o) => local - o)
    .filter((moment, i) => offsetAt(format, moment) === offsets[i]);
  const [only, other] = moments.sort((a, b) => a - b);
  if (only !== undefined && other === undefined) return only;
  const utc = (moment: number) => formatInstant(BigInt(moment) * 1_000_000n);
  if (only !== undefined && other !== undefined) {
    throw refused(
      text,
      `in ${zone} the clocks were put back then, and it came twice, as ${utc(only)} and as ${utc(other)}`,
      `Say which one is meant: '${utc(only)}' or '${utc(other)}'.`,
    );
  }
  const readings = offsets.map((o) => local - o).sort((a, b) => a - b);
  const [first, last] = [utc(readings[0] ?? 0), utc(readings.at(-1) ?? 0)];
  throw refused(
    text,
    `in ${zone} the clocks were put forward then, and it never came; it may stand for ${first} or for ${last}`,
    `Say which one is meant: '${first}' or '${last}'.`,
  );
}

/** Whether `parseInstant` takes it as a zone. */
export function isTimeZone(zone: string): boolean {
  try {
    return zoneFormat('', zone) !== undefined;
  } catch (error) {
    if (isHoldfastError(error, 'command.invalid-time')) return false;
    throw error;
  }
}

function zoneFormat(text: string, zone: string): Intl.DateTimeFormat {
  // Abbreviations are refused: EST is taken by some as the time of New York in summer too, IST has three meanings.
  if (!zone.includes('/') && !/^(UTC|GMT)$/i.test(zone)) {
    throw refused(
      text,
      `${zone} is no zone name; write UTC, an offset such as +02:00, or a name such as Europe/Berlin`,
    );
  }
  try {
    return new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw refused(text, `no time zone is called ${zone}`);
  }
}

function offsetAt(format: Intl.DateTimeFormat, seconds: number): number {
  const parts = new Map(format.formatToParts(seconds * 1000).map(({ type, value }) => [type, Number(value)]));
  const field = (name: Intl.DateTimeFormatPartTypes) => parts.get(name) ?? 0;
  return (
    epochSeconds([
      field('year'),
      field('month'),
      field('day'),
      field('hour'),
      field('minute'),
      field('second'),
    ]) - seconds
  );
}
