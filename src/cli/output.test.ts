import { afterEach, expect, it, vi } from 'vitest';
import { HoldfastError } from '../core/errors.ts';
import { Secrets } from '../core/redaction.ts';
import { printError } from './output.ts';

afterEach(() => vi.restoreAllMocks());

const told = (secret: string, json: boolean): string => {
  const secrets = new Secrets();
  secrets.add(secret);
  let text = '';
  vi.spyOn(json ? process.stdout : process.stderr, 'write').mockImplementation((chunk) => {
    text += String(chunk);
    return true;
  });
  const error = new HoldfastError('repository.wrong-key', `The key ${secret} opens nothing.`, {
    details: { tried: [secret], code: 'repository.wrong-key' },
  });
  printError('restore', error, { json, clean: (one) => secrets.redact(one) });
  return text;
};

it.each([false, true])('never masks a code, and always the secret (json: %s)', (json) => {
  const text = told('wrong', json);
  expect(text).toContain('repository.wrong-key');
  expect(text).toContain('The key *** opens nothing.');
});

it('keeps the names of fields when the secret is one of them', () => {
  expect(JSON.parse(told('details', true))).toMatchObject({
    command: 'restore',
    error: { code: 'repository.wrong-key', details: { tried: ['***'] }, exit: 4 },
  });
});
