import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HoldfastError } from './errors.ts';
import { formatInstant, parseInstant } from './time.ts';

const now = Date.UTC(2026, 10, 21, 12, 0, 0);
const read = (text: string, timezone = 'UTC') => parseInstant(text, { timezone, now }).utc;
const refusal = (text: string, timezone = 'UTC'): HoldfastError => {
  try {
    read(text, timezone);
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'command.invalid-time') return error;
    throw error;
  }
  return expect.fail(`'${text}' was read as ${read(text, timezone)}`);
};

describe('parseInstant', () => {
  it.each([
    ['2026-11-21T14:30:00Z', '2026-11-21T14:30:00Z'],
    ['2026-11-21T14:30:00.123456+02:00', '2026-11-21T12:30:00.123456Z'],
    ['2026-11-21T14:30:00.5-0530', '2026-11-21T20:00:00.500000Z'],
    ['2026-11-21 14:30:00.000001+00', '2026-11-21T14:30:00.000001Z'],
    ['2026-11-21 14:30', '2026-11-21T14:30:00Z'],
    ['2026-11-21 14:30 Europe/Berlin', '2026-11-21T13:30:00Z'],
    ['2026-07-21 14:30 Europe/Berlin', '2026-07-21T12:30:00Z'],
    ['2026-07-21 14:30:00 UTC', '2026-07-21T14:30:00Z'],
    ['2026-07-21 14:30:00 +05:45', '2026-07-21T08:45:00Z'],
    ['2026-11-21 14:30 America/Argentina/Buenos_Aires', '2026-11-21T17:30:00Z'],
    ['2028-02-29 00:00', '2028-02-29T00:00:00Z'],
    ['30s ago', '2026-11-21T11:59:30Z'],
    ['10m ago', '2026-11-21T11:50:00Z'],
    [' 2h ago ', '2026-11-21T10:00:00Z'],
    ['3d ago', '2026-11-18T12:00:00Z'],
  ])('reads %s', (text, utc) => expect(read(text)).toBe(utc));

  it('reads times without a zone by the configured one', () => {
    expect(read('2026-11-21T14:30:00', 'Asia/Kolkata')).toBe('2026-11-21T09:00:00Z');
  });

  it.each([
    ['', 'not of the form'],
    ['yesterday', 'not of the form'],
    ['2026-11-21', 'whole day'],
    ['14:30', 'the date is missing'],
    ['1763735400', 'no unit'],
    ['2026-13-01 00:00', 'no month 13'],
    ['2026-02-30 00:00', 'no day 30'],
    ['2027-02-29 00:00', 'no day 29'],
    ['2026-11-21 24:00', 'no hour 24'],
    ['2026-11-21 12:60', 'no minute 60'],
    ['2026-12-31 23:59:60', 'no second 60'],
    ['1969-12-31 23:59:59', 'before 1970'],
    ['2026-11-21 14:30 CST', 'CST is no zone name'],
    ['2026-11-21 14:30 Europe/Berlinn', 'no time zone is called Europe/Berlinn'],
    ['2026-11-21 14:30:00.1234567', 'finer than microseconds'],
    ['2026-11-21 14:30 +25:00', 'no offset +25:00'],
    ['21.11.2026 14:30', 'not of the form'],
    ['11/21/2026 14:30', 'not of the form'],
    ['2026-11-21 2:30 PM', 'not of the form'],
    ['10 minutes ago', 'an age is'],
    ['-5m ago', 'an age is'],
    ['2026-11-21 14:30Z tomorrow', 'not of the form'],
  ])("refuses '%s'", (text, why) => {
    const error = refusal(text);
    expect(error.message).toContain(why);
    expect(error.exit).toBe(2);
  });

  // Facts of the tz database; each pair is what zdump shows around the change.
  it.each([
    ['2026-10-25 02:30', 'Europe/Berlin', '2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z'],
    ['2026-11-01 01:30', 'America/New_York', '2026-11-01T05:30:00Z', '2026-11-01T06:30:00Z'],
    ['2026-04-05 01:45', 'Australia/Lord_Howe', '2026-04-04T14:45:00Z', '2026-04-04T15:15:00Z'],
  ])('refuses %s in %s, which came twice, with both readings', (text, zone, first, second) => {
    const error = refusal(text, zone);
    expect(error.message).toContain(`came twice, as ${first} and as ${second}`);
    expect(error.next).toContain(second);
  });

  it.each([
    ['2026-03-29 02:30', 'Europe/Berlin', '2026-03-29T00:30:00Z', '2026-03-29T01:30:00Z'],
    ['2026-03-08 02:00', 'America/New_York', '2026-03-08T06:00:00Z', '2026-03-08T07:00:00Z'],
    // Samoa left out a whole day.
    ['2011-12-30 12:00', 'Pacific/Apia', '2011-12-29T22:00:00Z', '2011-12-30T22:00:00Z'],
  ])('refuses %s in %s, which never came, with both readings', (text, zone, first, second) => {
    expect(refusal(text, zone).message).toContain(`never came; it may stand for ${first} or for ${second}`);
  });

  it('reads the seconds next to a change', () => {
    expect(read('2026-03-29 01:59:59 Europe/Berlin')).toBe('2026-03-29T00:59:59Z');
    expect(read('2026-03-29 03:00:00 Europe/Berlin')).toBe('2026-03-29T01:00:00Z');
    expect(read('2026-10-25 01:59:59 Europe/Berlin')).toBe('2026-10-24T23:59:59Z');
    expect(read('2026-10-25 03:00:00 Europe/Berlin')).toBe('2026-10-25T02:00:00Z');
  });

  it('reads back what it formats', () => {
    const latest = BigInt(Date.UTC(9999, 11, 31)) * 1000n;
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: latest }), (micros) => {
        expect(parseInstant(formatInstant(micros), { timezone: 'UTC' }).micros).toBe(micros);
      }),
    );
  });

  it('finds the moment whose clock shows the text in any zone, or names it among the readings', () => {
    const zones = [
      'Europe/Berlin',
      'America/New_York',
      'Australia/Lord_Howe',
      'Asia/Kathmandu',
      'Africa/Casablanca',
    ];
    const from = Date.UTC(1980, 0, 1) / 1000;
    const to = Date.UTC(2037, 0, 1) / 1000;
    fc.assert(
      fc.property(fc.constantFrom(...zones), fc.integer({ min: from, max: to }), (zone, seconds) => {
        const text = new Date(seconds * 1000).toLocaleString('sv-SE', { timeZone: zone });
        const utc = formatInstant(BigInt(seconds) * 1_000_000n);
        try {
          expect(read(`${text} ${zone}`)).toBe(utc);
        } catch (error) {
          if (!(error instanceof HoldfastError)) throw error;
          expect(error.message).toContain(utc);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('survives any text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          read(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'command.invalid-time' });
        }
      }),
    );
  });
});

describe('formatInstant', () => {
  it.each([
    [0n, '1970-01-01T00:00:00Z'],
    [1n, '1970-01-01T00:00:00.000001Z'],
    [-1n, '1969-12-31T23:59:59.999999Z'],
    [1_795_271_400_123_456n, '2026-11-21T14:30:00.123456Z'],
  ])('%s', (micros, text) => expect(formatInstant(micros)).toBe(text));
});
