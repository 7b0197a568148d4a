import { expect, it } from 'vitest';
import { saslPrep } from './sasl-prep.ts';

// RFC 4013, section 3; the last two are forbidden there, and PostgreSQL then takes the password as it is.
it.each([
  ['I\u00adX', 'IX'],
  ['user', 'user'],
  ['USER', 'USER'],
  ['\u00aa', 'a'],
  ['\u2168', 'IX'],
  ['\u0007', '\u0007'],
  ['\u0627\u0031', '\u0627\u0031'],
])('prepares %j as %j', (password, prepared) => {
  expect(saslPrep(password)).toBe(prepared);
});

it('takes other spaces for a space, and composes accents', () => {
  expect(saslPrep('a\u00a0b\u3000c')).toBe('a b c');
  expect(saslPrep('e\u0301')).toBe('\u00e9');
});

it('leaves a password as it is of which nothing would remain', () => {
  expect(saslPrep('\u00ad')).toBe('\u00ad');
  expect(saslPrep('')).toBe('');
});
