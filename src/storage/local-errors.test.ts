import { expect, it } from 'vitest';
import { HoldfastError } from '../core/errors.ts';
import { localError } from './local-errors.ts';

const system = (code: string) => Object.assign(new Error(code), { code });

it.each([
  ['ENOSPC', 'storage.full', 1],
  ['EDQUOT', 'storage.full', 1],
  ['EFBIG', 'storage.full', 1],
  ['EACCES', 'storage.denied', 1],
  ['EPERM', 'storage.denied', 1],
  ['EROFS', 'storage.read-only', 1],
  ['EIO', 'storage.failed', 1],
  ['EINVAL', 'storage.failed', 1],
  ['ENOENT', 'storage.unreachable', 7],
  ['ESTALE', 'storage.unreachable', 7],
  ['ENOTCONN', 'storage.unreachable', 7],
])('%s is %s', (code, expected, exit) => {
  const error = localError(system(code), 'write packs/x', '/backup');
  expect(error).toMatchObject({ code: expected, exit, details: { root: '/backup', system: code } });
  expect((error as HoldfastError).message).toContain('/backup');
});

it('does not call a folder gone that may never have been', () => {
  expect(localError(system('ENOENT'), 'open the store', '/backup')).toMatchObject({
    message: expect.stringContaining('it was never made, or its disk is not mounted'),
  });
});

it('names the errors that Node does not', () => {
  for (const [number, code] of [
    [122, 'storage.full'],
    [116, 'storage.unreachable'],
    [9999, 'storage.failed'],
  ]) {
    expect(localError(system(`Unknown system error -${number}`), 'x', '/')).toMatchObject({ code });
  }
});

it('lets every other error through unchanged', () => {
  const own = new HoldfastError('storage.conflict', 'x');
  const aborted = new DOMException('stop', 'AbortError');
  const node = Object.assign(new Error('stop'), { code: 'ABORT_ERR' });
  for (const error of [own, aborted, node, 'text', undefined])
    expect(localError(error, 'x', '/')).toBe(error);
});

it('says first who may not write where, and only then at which object that showed', () => {
  const error = localError(
    Object.assign(system('EACCES'), { path: '/backup/roster/3' }),
    'write roster/3',
    '/backup',
  );
  const { message, next } = error as HoldfastError;
  expect(message).toMatch(/^The user \S+ may not write in the repository's folder \/backup \(/);
  expect(message.indexOf('/backup/roster/3')).toBeGreaterThan(0);
  expect(next).toContain('chown -R');
  expect(localError(system('EACCES'), 'read keys/x', '/backup')).toMatchObject({
    message: expect.stringMatching(/^The user \S+ may not read/),
  });
});
