import { userInfo } from 'node:os';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { isHoldfastError } from '../../core/errors.ts';
import { describeConnection, parseConnection } from './connection.ts';
import { passwordFor } from './password-file.ts';

// No home with libpq's files.
const bare = { HOME: '/nowhere' };

describe('parseConnection', () => {
  it.each([
    [
      'postgres://ann@db.example:6432/shop',
      { host: 'db.example', port: 6432, user: 'ann', database: 'shop' },
    ],
    ['postgresql://db.example', { host: 'db.example', port: 5432, database: userInfo().username }],
    ['postgres://ann@db/', { host: 'db', database: 'ann' }],
    ['postgres://a%40b@[::1]:7000/x%2Fy', { host: '::1', port: 7000, user: 'a@b', database: 'x/y' }],
    ['postgres://u@%2Fvar%2Frun%2Fpg/d', { host: '/var/run/pg', user: 'u', database: 'd' }],
    ['postgres:///d?host=/tmp&port=5433&user=u', { host: '/tmp', port: 5433, user: 'u', database: 'd' }],
    ['postgres://u@db/d?sslmode=require', { sslMode: 'require', sslModeExplicit: true }],
    ['postgres://u@db/d?ssl=true', { sslMode: 'require' }],
    ['postgres://u@db/d?connect_timeout=3', { connectTimeoutMs: 3000 }],
    ['postgres://u@db/d?keepalives=0', { keepAlive: false }],
    [
      'postgres://u@db/d?application_name=x&options=-c%20work_mem%3D4MB',
      { applicationName: 'x', options: '-c work_mem=4MB' },
    ],
    ['host=db port=6000 user=ann dbname=shop', { host: 'db', port: 6000, user: 'ann', database: 'shop' }],
    ["host = db user='it\\'s me' dbname=''", { user: "it's me", database: "it's me" }],
    [
      { host: 'db', port: 1, user: 'u', database: 'd', sslMode: 'disable' },
      { port: 1, database: 'd', sslMode: 'disable' },
    ],
    [
      { url: 'postgres://u@db/d', port: 99, connectTimeout: 7, keepAlive: true },
      { host: 'db', port: 99, connectTimeoutMs: 7000, keepAlive: true },
    ],
    [
      { host: 'db', idleTimeout: 9, maxAge: 11 },
      { idleTimeoutMs: 9000, maxAgeMs: 11000 },
    ],
    ['postgres://u@db/d?connect_timeout=0', { connectTimeoutMs: 10_000 }],
  ])('reads %j', (input, expected) => {
    expect(parseConnection(input, bare)).toMatchObject(expected);
  });

  it('has the documented defaults', () => {
    expect(parseConnection('postgres://u@db/d', bare)).toEqual({
      host: 'db',
      port: 5432,
      user: 'u',
      database: 'd',
      password: undefined,
      passwordNote: undefined,
      sslMode: 'prefer',
      sslModeExplicit: false,
      sslRootCert: undefined,
      sslCert: undefined,
      sslKey: undefined,
      channelBinding: 'prefer',
      applicationName: 'holdfast',
      options: undefined,
      connectTimeoutMs: 10_000,
      keepAlive: true,
      keepAliveIdleMs: 30_000,
      keepAliveIntervalMs: 10_000,
      keepAliveCount: 3,
      idleTimeoutMs: 300_000,
      maxAgeMs: 3_600_000,
    });
  });

  it('falls back to the environment, and only where the address says nothing', () => {
    const env = {
      ...bare,
      PGHOST: 'e',
      PGPORT: '1111',
      PGUSER: 'eu',
      PGDATABASE: 'ed',
      PGPASSWORD: 'ep',
      PGSSLMODE: 'require',
      PGAPPNAME: 'ea',
      PGCONNECT_TIMEOUT: '4',
    };
    expect(parseConnection({}, env)).toMatchObject({
      host: 'e',
      port: 1111,
      user: 'eu',
      database: 'ed',
      sslMode: 'require',
      sslModeExplicit: true,
      applicationName: 'ea',
      connectTimeoutMs: 4000,
    });
    const mixed = parseConnection('postgres://u@db', env);
    expect(mixed).toMatchObject({ host: 'db', port: 1111, user: 'u', database: 'ed' });
    expect(mixed.password?.reveal()).toBe('ep');
    expect(parseConnection('postgres://u:p%40ss%3A@db', env).password?.reveal()).toBe('p@ss:');
  });

  it.each([
    ['postgres://h1,h2/d', /several hosts/],
    ['postgres://h1:1,h2:2/d', /several hosts/],
    ['host=h1,h2', /several hosts/],
    ['postgres://u@db:99999/d', /port/],
    ['postgres://u@db:x/d', /host and port/],
    ['mysql://u@db/d', /neither a URL/],
    ['postgres://u@db/d?sslmode=sometimes', /sslmode/],
    ['postgres://u@db/d?sslmode=verify-full', /root certificate/],
    ['postgres://u@db/d?sslmode=require&sslrootcert=system', /verify-full/],
    ['postgres://u@db/d?colour=red', /"colour" is not a setting/],
    ['postgres://u@db/d?hostaddr=1.2.3.4', /hostaddr is not supported/],
    ['postgres://u@db/d?gssencmode=require', /gssencmode is supported only/],
    ['postgres://u@db/d?connect_timeout=soon', /connect_timeout/],
    ['postgres://u@db/d?novalue', /no value/],
    [{ host: 'db', password: {} }, /password is neither/],
  ])('refuses %j', (input, problem) => {
    const attempt = () => parseConnection(input, bare);
    expect(attempt).toThrow(problem);
    expect(attempt).toThrow(expect.objectContaining({ code: 'postgres.invalid-address', exit: 2 }));
  });

  it('refuses variables that would have to be ignored, by name', () => {
    expect(() => parseConnection('postgres://db', { ...bare, PGSERVICE: 'x' })).toThrow(
      /PGSERVICE is not supported/,
    );
  });

  it('never shows the password', () => {
    const secret = 'hunter2';
    const settings = { ...parseConnection(`postgres://u:${secret}@db/d`, bare) };
    expect(settings.password?.reveal()).toBe(secret);
    const shown = [
      inspect(settings, { depth: 9, showHidden: true }),
      JSON.stringify(settings),
      `${settings.password}`,
    ];
    shown.push(describeConnection(settings));
    for (const text of shown) expect(text).not.toContain(secret);
    const bad = [
      `postgres://u:${secret}%@db`,
      `postgres://u:${secret}/x@db:1/d`,
      `postgres://u:${secret}@db?sslmode=x`,
      `host=db password='${secret}`,
    ];
    for (const input of bad) {
      try {
        parseConnection(input, bare);
        expect.unreachable(input);
      } catch (error) {
        expect(isHoldfastError(error, 'postgres.invalid-address'), input).toBe(true);
        expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(secret);
      }
    }
  });

  it('describes an address so that it can be read back', () => {
    for (const url of [
      'postgres://u@db:5432/d',
      'postgres://a%40b@[::1]:1/x%2Fy',
      'postgres://u@/d?host=/tmp&port=5433',
    ]) {
      expect(describeConnection(parseConnection(url, bare))).toBe(url);
    }
  });
});

describe('the password file', () => {
  const text = [
    '# a comment',
    'db:5432:shop:ann:first',
    'db:*:*:bob:with\\:colon\\\\and more:',
    'localhost:5432:*:ann:socket',
    'too:few:fields',
    '*:*:*:*:last',
  ].join('\n');
  it.each([
    [{ host: 'db', port: 5432, database: 'shop', user: 'ann' }, 'first'],
    [{ host: 'db', port: 1, database: 'x', user: 'bob' }, 'with:colon\\and more:'],
    [{ host: '/var/run/postgresql', port: 5432, database: 'x', user: 'ann' }, 'socket'],
    [{ host: 'db', port: 5433, database: 'shop', user: 'ann' }, 'last'],
  ])('finds for %j', (place, password) => {
    expect(passwordFor(place, text)).toBe(password);
  });
  it('finds nothing where nothing fits', () => {
    expect(passwordFor({ host: 'h', port: 1, database: 'd', user: 'u' }, 'x:*:*:*:p\n')).toBeUndefined();
  });
});
