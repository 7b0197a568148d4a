import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { configuredSource, type LoadOptions, loadConfiguration, requireComplete } from './config.ts';
import { describeConfiguration, maskedConfiguration } from './config-describe.ts';
import { HoldfastError } from './errors.ts';
import { Secrets } from './redaction.ts';
import { readSecretFile, requirePassphrase, resolvePassphrase } from './secret.ts';

const kinds = {
  postgres: z.object({
    url: z.string(),
    slot: z.string().default('holdfast'),
    workers: z.number().optional(),
  }),
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-config-'));
});
afterEach(() => rm(folder, { recursive: true }));

const load = (env: NodeJS.ProcessEnv = {}, more: Partial<LoadOptions> = {}) =>
  loadConfiguration({ kinds, cwd: folder, env, ...more });
const write = (text: string, name = 'holdfast.yaml') => writeFile(join(folder, name), text);
const failure = async (promise: Promise<unknown>): Promise<HoldfastError> =>
  promise.then(
    () => expect.fail('should have failed'),
    (error) => (error instanceof HoldfastError ? error : Promise.reject(error)),
  );

describe('a configuration file', () => {
  it('is read with defaults, relative paths counted from its folder', async () => {
    await write('repository: backups\nsources:\n  ledger: { kind: postgres, url: postgres://h/db }\n');
    await mkdir(join(folder, 'below/deeper'), { recursive: true });
    const found = await load({ HOLDFAST_STATE: '/s' }, { cwd: join(folder, 'below/deeper') });
    expect(found).toMatchObject({
      file: join(folder, 'holdfast.yaml'),
      repository: join(folder, 'backups'),
      state: '/s',
      timezone: 'UTC',
      environment: null,
      log: { level: 'info', format: 'text' },
      sources: {
        ledger: { name: 'ledger', kind: 'postgres', settings: { url: 'postgres://h/db', slot: 'holdfast' } },
      },
    });
    expect(Object.isFrozen(found.sources.ledger)).toBe(true);
  });

  it('--config goes before $HOLDFAST_CONFIG before the nearest file', async () => {
    for (const name of ['a', 'b', 'holdfast']) await write(`repository: /${name}`, `${name}.yaml`);
    const env = { HOLDFAST_CONFIG: 'b.yaml' };
    expect((await load(env, { path: 'a.yaml' })).repository).toBe('/a');
    expect((await load(env)).repository).toBe('/b');
    expect((await load()).repository).toBe('/holdfast');
    expect((await load({}, { repository: 's3://bucket/x' })).repository).toBe('s3://bucket/x');
  });

  it('says when the file named is not there', async () => {
    const error = await failure(load({}, { path: 'none.yaml' }));
    expect(error).toMatchObject({ code: 'config.unreadable', exit: 2 });
    expect(error.message).toContain(`${join(folder, 'none.yaml')}: there is no such file`);
  });

  it.each([
    ['repositry: /b', 'holdfast.yaml:1:1: repositry: no such setting (did you mean repository?)'],
    [
      'repository: /b\nlog:\n  levle: info',
      'holdfast.yaml:3:3: log.levle: no such setting (did you mean level?)',
    ],
    [
      'repository: /b\nlog:\n  level: loud',
      'holdfast.yaml:3:10: log.level must be one of debug, info, warn, error',
    ],
    ['sources: {}', 'holdfast.yaml:1:1: repository is missing'],
    ['', 'holdfast.yaml:1:1: repository is missing'],
    [
      'repository: {adress: /b}',
      'holdfast.yaml:1:14: repository.adress: no such setting (did you mean address?)',
    ],
    ['repository: [', 'holdfast.yaml:1:'],
    ['repository: /a\nrepository: /b', 'holdfast.yaml:2:1: Map keys must be unique'],
    ['repository: /b\ntimezone: Mars/Base', 'holdfast.yaml:2:11: timezone: is no time zone'],
    [
      'repository: /b\nsources:\n  Big One: {kind: postgres, url: x}',
      'holdfast.yaml:3:3: sources.Big One: the name must be 1 to 40',
    ],
    [
      'repository: /b\nsources:\n  a: {kind: postgrse, url: x}',
      '3:13: sources.a.kind: this version knows no kind postgrse (did you mean postgres?)',
    ],
    [
      'repository: /b\nsources:\n  a:\n    kind: postgres\n    ulr: x',
      '5:5: sources.a.ulr: no such setting (did you mean url?)',
    ],
    ['repository: /b\nsources:\n  a:\n    kind: postgres', '3:3: sources.a.url is missing'],
    [
      'repository: /b\nsources:\n  a:\n    kind: ${NOPE}',
      '4:11: sources.a.kind needs the environment variable NOPE',
    ],
    ['repository: /b\nkey: {passphrase: a, passphraseFile: b}', '2:6: key: only one of'],
    ['repository: 5', 'holdfast.yaml:1:13: repository must be a text or settings (name: value)'],
    ['repository:\nsources:', 'holdfast.yaml:1:12: repository is missing'],
    [
      'repository: /b\nsources:\n  - kind: postgres',
      'holdfast.yaml:3:3: sources must be settings (name: value)',
    ],
    ['just text', 'holdfast.yaml:1:1: the configuration must be settings (name: value)'],
    ['repository: /b\nkey: {passphraseCommand: []}', 'key.passphraseCommand must have at least 1 item'],
    ['repository: /b\nkey: {recipients: 3}', 'key.recipients must be a list'],
  ])('%j is refused with its place', async (text, expected) => {
    await write(text);
    const error = await failure(load());
    expect(error).toMatchObject({ code: 'config.invalid', exit: 2 });
    expect(error.message).toContain(expected);
  });

  it('reports all mistakes at once, in the order of the file', async () => {
    await write('repository: /b\nsources:\n  a: {kind: postgres, url: 5, workers: many}\nlog: {level: x}\n');
    const error = await failure(load());
    expect((error.details.mistakes as string[]).map((line) => line.split(' ')[1])).toEqual([
      'sources.a.url',
      'sources.a.workers',
      'log.level',
    ]);
  });

  it('puts variables in: plain, with default, escaped, into numbers; and not into comments or names', async () => {
    await write(
      'repository: ${ROOT}/app # ${NOT_SET}\nenvironment: "${NOT_SET:-dev} $${x} ${EMPTY:-e}"\n' +
        'sources:\n  a:\n    kind: postgres\n    url: postgres://u@${HOST:-h}/db\n    workers: ${N}\n',
    );
    const found = await load({ ROOT: '/r', N: '4', EMPTY: '' });
    expect(found.repository).toBe('/r/app');
    expect(found.environment).toBe('dev ${x} e');
    expect(found.sources.a?.settings).toMatchObject({ url: 'postgres://u@h/db', workers: 4 });
    expect(found.origins.repository).toBe('holdfast.yaml:1:13, environment ROOT');
  });

  it('reads .env beside the file; the real environment wins', async () => {
    await write('repository: ${A}-${B}-${C}');
    await write('A=/file\nB="from file"\n# x\nexport C=c\n', '.env');
    expect((await load({ B: 'real' })).repository).toBe('/file-real-c');
  });

  it('needs no key to be read where only the passphrase names a missing variable', async () => {
    await write('repository: /b\nkey:\n  passphrase: ${BACKUP_ENCRYPTION_KEY}\n');
    const { key } = await load();
    expect(key.passphrase).toBeUndefined();
    const error = await failure(resolvePassphrase(key, { secrets: new Secrets() }));
    expect(error).toMatchObject({ code: 'config.no-key' });
    expect(error.message).toContain('BACKUP_ENCRYPTION_KEY, which is not set');
  });

  it('needs no variable of a source before that source is opened', async () => {
    await write(
      'repository: /b\nsources:\n  a:\n    kind: postgres\n    url: postgres://u:${PW}@h/db\n    workers: ${N}\n  c: { kind: postgres, url: x }\n',
    );
    const found = await load();
    expect(() => requireComplete(configuredSource(found, 'c'))).not.toThrow();
    const opening = () => requireComplete(configuredSource(found, 'a'));
    expect(opening).toThrow('holdfast.yaml:5:10: sources.a.url needs the environment variable PW');
    expect(opening).toThrow('holdfast.yaml:6:14: sources.a.workers needs the environment variable N');
    const complete = configuredSource(await load({ PW: 'p', N: '3' }), 'a');
    expect(complete.settings).toMatchObject({ url: 'postgres://u:p@h/db', workers: 3 });
    expect(complete.missing).toBeUndefined();
  });

  it('refuses at once what is wrong beside a missing variable of a source', async () => {
    await write('repository: /b\nsources:\n  a:\n    kind: postgres\n    url: ${URL}\n    sloot: x\n');
    expect((await failure(load())).message).toContain('6:5: sources.a.sloot: no such setting');
  });

  it('does not care for variables of zero configuration', async () => {
    await write('repository: /b');
    expect((await load({ REDIS_URL: 'redis://x', BACKUP_DIR: '/other' })).repository).toBe('/b');
  });
});

describe('zero configuration', () => {
  const env = {
    DATABASE_URL: 'postgres://u:hunter22@h/db',
    BACKUP_DIR: 'bk',
    BACKUP_ENCRYPTION_KEY: 'open sesame',
  };

  it('takes DATABASE_URL, BACKUP_DIR and BACKUP_ENCRYPTION_KEY', async () => {
    const secrets = new Secrets();
    const found = await load(env, { secrets });
    expect(found).toMatchObject({
      file: null,
      repository: join(folder, 'bk'),
      key: { passphrase: 'open sesame' },
      sources: { postgres: { name: 'postgres', kind: 'postgres', settings: { url: env.DATABASE_URL } } },
    });
    expect(secrets.redact('open sesame hunter22')).toBe('*** ***');
  });

  it('takes them from .env too', async () => {
    await write(
      Object.entries(env)
        .map(([k, v]) => `${k}='${v}'`)
        .join('\n'),
      '.env',
    );
    const found = await load();
    expect(found.repository).toBe(join(folder, 'bk'));
    expect(found.origins['sources.postgres.url']).toBe(`${join(folder, '.env')} DATABASE_URL`);
  });

  it('is enough with the repository alone, to list and restore', async () => {
    expect(await load({ BACKUP_DIR: '/b' })).toMatchObject({ repository: '/b', sources: {} });
    expect(await load({}, { repository: '/r' })).toMatchObject({ repository: '/r' });
  });

  it.each(['REDIS_URL', 'MONGODB_URL', 'AWS_S3_BUCKET', 'BACKUP_RETENTION_DAYS', 'BACKUP_NOTIFY_EMAIL'])(
    'refuses %s by name',
    async (name) => {
      const error = await failure(load({ ...env, [name]: '7' }));
      expect(error).toMatchObject({
        code: 'config.unsupported-variable',
        exit: 2,
        details: { variable: name },
      });
      expect(error.message).toContain(name);
      expect(error.next).toContain(name);
    },
  );

  it('shows the smallest configuration when there is none', async () => {
    const error = await failure(load());
    expect(error).toMatchObject({ code: 'config.none', exit: 2 });
    const yaml = error.next.slice(error.next.indexOf('\n'), error.next.indexOf('Or,'));
    await write(yaml);
    expect(await load()).toMatchObject({
      repository: '/var/backups/app',
      sources: { app: { kind: 'postgres' } },
    });
    expect((await failure(load({ DATABASE_URL: 'postgres://h/d' }, { cwd: '/' }))).message).toContain(
      'BACKUP_DIR',
    );
  });

  it('refuses a database that it does not know, without showing its password', async () => {
    const error = await failure(load({ ...env, DATABASE_URL: 'mysql://u:hunter22@h/db' }));
    expect(error.code).toBe('config.invalid');
    expect(error.message).toBe('DATABASE_URL starts with mysql:, which names no supported database.');
  });
});

describe('describeConfiguration', () => {
  it('shows values with their origin, secrets masked, and is YAML', async () => {
    await write(
      'repository: /b\nkey: {passphrase: "${K}"}\nsources:\n  a: {kind: postgres, url: "postgres://u:pw@h/db"}\n',
    );
    const found = await load({ K: 'open sesame' });
    const text = describeConfiguration(found);
    expect(text).not.toMatch(/sesame|pw/);
    expect(text).toContain('repository: /b # holdfast.yaml:1:13');
    expect(text).toContain('timezone: UTC # default');
    expect(parse(text)).toEqual(maskedConfiguration(found));
    expect(maskedConfiguration(found)).toMatchObject({
      key: { passphrase: '***' },
      sources: { a: { url: 'postgres://u:***@h/db' } },
    });
  });

  it('never lets a mistake show a secret', async () => {
    await write('repository: /b\nsources:\n  a: {kind: "${PASSWORD}", url: x}\n');
    expect((await failure(load({ PASSWORD: 'hunter22' }))).message).not.toContain('hunter22');
  });
});

describe('configuredSource', () => {
  it('finds the one meant, or says which there are', async () => {
    await write('repository: /b\nsources:\n  a: {kind: postgres, url: x}\n  b: {kind: postgres, url: y}\n');
    const found = await load();
    expect(configuredSource(found, 'b').settings).toMatchObject({ url: 'y' });
    expect(() => configuredSource(found)).toThrow('Which source is meant? Configured: a, b.');
    expect(() => configuredSource(found, 'toString')).toThrow('No source is called toString.');
  });
});

describe('secrets', () => {
  const options = () => ({ secrets: new Secrets() });

  it('come from a file, one line break dropped, with a warning when everybody may read it', async () => {
    const path = join(folder, 'pass');
    await writeFile(path, ' open sesame \n\n');
    await chmod(path, 0o644);
    const open = await readSecretFile(path, options());
    expect(open.value).toBe(' open sesame \n');
    expect(open.warnings[0]?.remedy).toBe(`chmod o= '${path}'`);
    await chmod(path, 0o600);
    expect((await readSecretFile(path, options())).warnings).toEqual([]);
  });

  it('come from a command without a shell', async () => {
    const found = await resolvePassphrase({ passphraseCommand: ['printf', '%s\\n', '$HOME "x"'] }, options());
    expect(found?.value).toBe('$HOME "x"');
  });

  it('do not show in the error of a command that fails after printing them', async () => {
    const error = await failure(
      resolvePassphrase({ passphraseCommand: ['sh', '-c', 'echo hunter22; exit 1'] }, options()),
    );
    expect(JSON.stringify([error.message, error.details])).not.toContain('hunter22');
  });

  it('are refused when empty, missing or not configured', async () => {
    await write('\n', 'empty');
    expect((await failure(readSecretFile(join(folder, 'empty'), options()))).code).toBe('config.no-key');
    expect((await failure(readSecretFile(join(folder, 'none'), options()))).code).toBe('config.unreadable');
    expect(await resolvePassphrase({}, options())).toBeNull();
    expect((await failure(requirePassphrase({}, options()))).code).toBe('config.no-key');
  });
});
