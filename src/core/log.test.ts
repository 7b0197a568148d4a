import { describe, expect, it } from 'vitest';
import { HoldfastError } from './errors.ts';
import { createLogger, type LoggerOptions, Secrets, silentLogger } from './log.ts';

function capture(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const log = createLogger({ write: (line) => lines.push(line), now: () => 0, ...options });
  return { lines, log, json: () => lines.map((line) => JSON.parse(line)) };
}

describe('createLogger', () => {
  it('writes one text line a record', () => {
    const { lines, log } = capture();
    log.info('put', { object: 'packs/aa', bytes: 12n, note: 'two words' });
    expect(lines).toEqual(['1970-01-01T00:00:00.000Z info  put object=packs/aa bytes=12 note="two words"\n']);
  });

  it('writes JSON lines, bound fields included', () => {
    const { log, json } = capture({ format: 'json' });
    log.with({ source: 'ledger' }).warn('slow', { ms: 5 });
    expect(json()).toEqual([
      { time: '1970-01-01T00:00:00.000Z', level: 'warn', message: 'slow', source: 'ledger', ms: 5 },
    ]);
  });

  it('drops records below its level', () => {
    const { lines, log } = capture({ level: 'warn' });
    log.debug('a');
    log.info('b');
    log.warn('c');
    log.error('d');
    expect(lines).toHaveLength(2);
  });

  it('cannot be made to forge a record or drive a terminal', () => {
    const { lines, log } = capture();
    log.info('a\n2026 error forged \u001b[2J', { field: 'x\ny\u001b[0m' });
    expect(lines).toHaveLength(1);
    const line = lines[0]?.trimEnd() ?? '';
    expect([...line].filter((c) => c < ' ')).toEqual([]);
  });

  it('renders errors with their code and cause, and survives cycles', () => {
    const { log, json } = capture({ format: 'json' });
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    log.error('failed', {
      error: new HoldfastError('net.timeout', 'too late', { cause: new Error('inner') }),
      cyclic,
      bytes: new Uint8Array(3),
    });
    expect(json()[0]).toMatchObject({
      error: { code: 'net.timeout', message: 'too late', cause: { message: 'inner' } },
      bytes: '<3 bytes>',
    });
  });

  it('never lets a field replace time, level or message', () => {
    const { log, json } = capture({ format: 'json' });
    log.info('real', { level: 'forged', message: 'forged', time: 'forged' });
    expect(json()[0]).toEqual({ time: '1970-01-01T00:00:00.000Z', level: 'info', message: 'real' });
  });
});

describe('redaction in logs', () => {
  const secret = 'correct horse/battery"staple';

  it('replaces registered secrets in messages, fields, keys, nested values and errors', () => {
    for (const format of ['text', 'json'] as const) {
      const secrets = new Secrets();
      const { lines, log } = capture({ format, secrets });
      secrets.add(secret);
      log.info(`with ${secret}`, {
        plain: secret,
        encoded: encodeURIComponent(secret),
        list: [secret, { deep: `x${secret}y`, [secret]: 1 }],
        map: new Map([[secret, secret]]),
        error: new Error(`bad ${secret}`, { cause: new Error(secret) }),
      });
      const text = lines.join('');
      expect(text).not.toContain('battery');
      expect(text).toContain('***');
    }
  });

  it('masks fields with the names of secrets', () => {
    const { log, json } = capture({ format: 'json' });
    log.info('x', {
      password: 'a1',
      dbPassword: 'a2',
      PGPASSWORD_TOKEN: 'a3',
      api_key: 'a4',
      nested: { passphrase: 'a5', keys: ['a6'], keyId: 'kept', publicKey: 'kept', passphraseFile: '/kept' },
    });
    const text = JSON.stringify(json());
    expect(text).not.toMatch(/a[1-6]/);
    expect(text.match(/kept/g)).toHaveLength(3);
  });

  it('is silent when nobody reads', () => {
    expect(silentLogger.with({ a: 1 }).info('x')).toBeUndefined();
  });
});
