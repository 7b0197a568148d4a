import { describe, expect, it } from 'vitest';
import { isHoldfastError } from '../core/errors.ts';
import { scramClient } from './scram.ts';

// RFC 7677, section 3.
const rfc = {
  user: 'user',
  password: 'pencil',
  nonce: 'rOprNGfwEbeRWgbNEkqO',
  serverFirst: 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
  final:
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  serverFinal: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
};
const plain = { ...rfc, binding: { kind: 'none' } } as const;

describe('SCRAM-SHA-256', () => {
  it('speaks the exchange of RFC 7677', async () => {
    const client = scramClient(plain);
    expect(client.mechanism).toBe('SCRAM-SHA-256');
    expect(client.first).toBe('n,,n=user,r=rOprNGfwEbeRWgbNEkqO');
    expect(await client.answer(rfc.serverFirst)).toBe(rfc.final);
    client.finish(rfc.serverFinal);
  });

  it('refuses a server that does not know the password', async () => {
    const client = scramClient(plain);
    await client.answer(rfc.serverFirst);
    const forged = `v=${Buffer.alloc(32, 7).toString('base64')}`;
    for (const final of [
      forged,
      'v=',
      'v=6rriTRBi',
      'e=other-error',
      '',
      rfc.serverFinal.replace('6rri', '7rri'),
    ]) {
      expect(() => client.finish(final), final).toThrow(
        expect.objectContaining({ code: 'net.authentication' }),
      );
    }
  });

  it('refuses a proof before the challenge', () => {
    expect(() => scramClient(plain).finish(rfc.serverFinal)).toThrow(/no proof/);
  });

  it.each([
    ['an answer to another nonce', rfc.serverFirst.replace('rOprNGfw', 'xOprNGfw')],
    ['a nonce that it did not add to', 'r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096'],
    ['no iterations', rfc.serverFirst.replace('i=4096', 'i=0')],
    ['iterations that would burn the CPU', rfc.serverFirst.replace('i=4096', 'i=999999999')],
    ['a mandatory extension', `m=x,${rfc.serverFirst}`],
    ['rubbish', 'hello'],
    ['nothing', ''],
  ])('refuses a challenge with %s', async (_what, challenge) => {
    const error = await scramClient(plain)
      .answer(challenge)
      .catch((reason: unknown) => reason);
    expect(isHoldfastError(error, 'net.authentication')).toBe(true);
  });

  it('binds to the TLS connection, and tells when it could have', async () => {
    const bound = scramClient({
      ...plain,
      binding: { kind: 'bound', data: Buffer.from('certificate hash') },
    });
    expect(bound.mechanism).toBe('SCRAM-SHA-256-PLUS');
    expect(bound.first).toBe('p=tls-server-end-point,,n=user,r=rOprNGfwEbeRWgbNEkqO');
    const answer = await bound.answer(rfc.serverFirst);
    const header = Buffer.from(/^c=([^,]*)/.exec(answer)![1]!, 'base64').toString();
    expect(header).toBe('p=tls-server-end-point,,certificate hash');
    // RFC 5802, section 6: a server that offered binding sees "y" and knows that its offer was removed.
    expect(scramClient({ ...plain, binding: { kind: 'unoffered' } }).first).toMatch(/^y,,/);
  });

  it('never uses a nonce twice', () => {
    const { nonce: _fixed, ...options } = plain;
    expect(scramClient(options).first).not.toBe(scramClient(options).first);
  });
});
