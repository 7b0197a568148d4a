import { describe, expect, it } from 'vitest';
import { connectionOf, postgresSettings, slotName } from './settings.ts';

describe('settings of a PostgreSQL source', () => {
  it('need no more than an address, and have safe defaults', () => {
    const settings = postgresSettings.parse({ url: 'postgres://app:secret@db.example:6543/ledger' });
    expect(settings).toMatchObject({ heartbeat: 10, partInterval: 0.5, partSize: 16, checkpoint: 'fast' });
    const connection = connectionOf(settings, {});
    expect(connection).toMatchObject({ host: 'db.example', port: 6543, user: 'app', database: 'ledger' });
    expect(JSON.stringify(connection)).not.toContain('secret');
    expect(slotName('my-ledger', settings)).toBe('holdfast_my_ledger');
    expect(slotName('my-ledger', { slot: 'mine' })).toBe('mine');
  });

  it('take single words over those of the URL and of the environment', () => {
    const settings = postgresSettings.parse({ url: 'postgres://a@h/db', port: 7000, sslMode: 'require' });
    expect(connectionOf(settings, { PGPORT: '9', PGUSER: 'b' })).toMatchObject({
      port: 7000,
      user: 'a',
      sslMode: 'require',
    });
  });

  it.each([
    { slot: 'Upper' },
    { heartbeat: 0 },
    { heartbeat: 'never' },
    { partSize: 0 },
    { port: 70_000 },
    { partInterval: 3600 },
    { url: '' },
  ])('refuse %j', (given) => {
    expect(postgresSettings.safeParse(given).success).toBe(false);
  });
});
