import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { maskCredentials, Secrets } from './redaction.ts';

describe('Secrets', () => {
  it('hides any registered value of four characters or more wherever it stands', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 4, maxLength: 40 }).filter((s) => s.trim() === s && !s.includes('*')),
        fc.string(),
        fc.string(),
        (secret, before, after) => {
          const secrets = new Secrets();
          secrets.add(secret);
          const text = secrets.redact(`${before} ${secret} ${after}`);
          for (const line of secret.split(/\r?\n/)) {
            if (line.trim().length >= 4) expect(text).not.toContain(line);
          }
        },
      ),
    );
  });

  it('hides a short one only where it stands alone', () => {
    const secrets = new Secrets();
    secrets.add('pg');
    expect(secrets.redact('password pg for pgbench')).toBe('password *** for pgbench');
  });

  it('does not blank the words of every message, but their place in an address', () => {
    const secrets = new Secrets();
    secrets.add('postgres');
    expect(secrets.redact('postgres at postgres://postgres:postgres@h/postgres')).toBe(
      'postgres at postgres://postgres:***@h/postgres',
    );
  });

  it('hides the longer of two that overlap', () => {
    const secrets = new Secrets();
    secrets.add('abcd');
    secrets.add('abcdefgh');
    expect(secrets.redact('abcdefgh')).toBe('***');
  });

  it('hides each line of a secret of several lines', () => {
    const secrets = new Secrets();
    secrets.add('first line\nsecond line\n');
    expect(secrets.redact('a first line\n  b second line')).toBe('a ***\n  b ***');
  });
});

describe('maskCredentials', () => {
  it.each([
    ['postgres://app:pw@db:5432/app', 'postgres://app:***@db:5432/app'],
    ['postgres://app:p@ss@db/app', 'postgres://app:***@db/app'],
    ['postgres://app:p/s?#s@db/app', 'postgres://app:***@db/app'],
    ['redis://:only@host', 'redis://:***@host'],
    ['host=db password=pw user=x', 'host=db password=*** user=x'],
    ["host=db password='p w' user=x", 'host=db password=*** user=x'],
    ['postgres://db/app?sslpassword=pw&x=1', 'postgres://db/app?sslpassword=***&x=1'],
    ['postgres://app@db:5432/app', 'postgres://app@db:5432/app'],
    ['see https://example.org:80/a and a@b', 'see https://example.org:80/a and a@b'],
  ])('%s', (text, expected) => {
    expect(maskCredentials(text)).toBe(expected);
  });
});
