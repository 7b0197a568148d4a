import { describe, expect, it } from 'vitest';
import { connectionOf, databaseOf, postgresSettings, slotName } from './settings.ts';

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

  it.each([
    [{ url: 'postgres://u:${PGPASSWORD}@h/ledger?sslmode=require' }, 'ledger'],
    [{ url: 'host=h dbname=ledger' }, 'ledger'],
    [{ url: 'postgres://h/other', database: 'ledger' }, 'ledger'],
    [{ url: 'postgres://u@h' }, undefined],
    [{ url: 'postgres://u@h/${DB}' }, undefined],
    [{ url: 'postgres://u@h/x?nonsense=1' }, undefined],
    [undefined, undefined],
  ])('%j name the database %s, without anything else being looked up', (settings, expected) => {
    expect(databaseOf(settings)).toBe(expected);
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
