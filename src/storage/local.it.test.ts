import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalStore } from './local.ts';
import { openStore } from './open.ts';

const bytes = [Buffer.from('content')];
const code = (expected: string) => expect.objectContaining({ code: expected });
let base: string;
beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'holdfast-local-'));
});
afterEach(() => rm(base, { recursive: true, force: true }));

const mode = async (path: string) => (await stat(path)).mode & 0o7777;

describe('the folder', () => {
  it('is not created unless asked', async () => {
    await expect(LocalStore.open(join(base, 'no'))).rejects.toEqual(code('storage.unreachable'));
    expect(await readdir(base)).toEqual([]);
    const store = await LocalStore.open(join(base, 'a/b'), { create: true });
    await store.put('x', bytes);
    expect(await mode(join(base, 'a'))).toBe(0o750);
    expect(await readdir(join(base, 'a/b'))).toEqual(['tmp', 'x']);
  });

  it('must be a folder', async () => {
    await writeFile(join(base, 'file'), '');
    for (const options of [{}, { create: true }]) {
      const open = LocalStore.open(join(base, 'file'), options);
      await expect(open).rejects.toMatchObject({
        code: expect.stringMatching(/^storage\./),
        exit: expect.any(Number),
      });
    }
    await expect(LocalStore.open(join(base, 'file/x'))).rejects.toEqual(code('storage.unreachable'));
  });

  it('gives its modes whatever the umask, and keeps a group by setgid', async () => {
    for (const umask of [0, 0o077]) {
      const root = join(base, `u${umask}`);
      const before = process.umask(umask);
      try {
        const store = await LocalStore.open(root, { create: true });
        await chmod(root, 0o2750);
        await store.put('p/q/x', bytes);
      } finally {
        process.umask(before);
      }
      expect(await mode(join(root, 'p'))).toBe(0o2750);
      expect(await mode(join(root, 'p/q'))).toBe(0o2750);
      expect(await mode(join(root, 'p/q/x'))).toBe(0o640);
    }
  });

  it.skipIf(process.getuid?.() !== 0)('says which right is lacking', async () => {
    const store = await LocalStore.open(base);
    await store.put('p/x', bytes);
    await chmod(base, 0o755);
    await chmod(join(base, 'p'), 0o755);
    const groups = process.getgroups?.() ?? [];
    process.setgroups?.([]);
    process.setegid?.(65534);
    process.seteuid?.(65534);
    try {
      const other = await LocalStore.open(base);
      const denied = { code: 'storage.denied', message: expect.stringContaining(base) };
      await expect(other.put('p/y', bytes)).rejects.toMatchObject(denied);
      await expect(other.get('p/x')).rejects.toMatchObject(denied);
      await expect(other.delete('p/x')).rejects.toMatchObject(denied);
      await expect(openStore(join(base, 'n'), { create: true })).rejects.toMatchObject(denied);
    } finally {
      process.seteuid?.(0);
      process.setegid?.(0);
      process.setgroups?.(groups);
    }
  });

  it('that vanishes is unreachable, not empty, and is never made anew', async () => {
    const root = join(base, 'repository');
    const store = await LocalStore.open(root, { create: true });
    await store.put('p/x', bytes);
    const unreachable = code('storage.unreachable');
    const expectUnreachable = async () => {
      await expect(store.put('p/y', bytes)).rejects.toEqual(unreachable);
      await expect(store.put('new/y', bytes)).rejects.toEqual(unreachable);
      await expect(store.get('p/x')).rejects.toEqual(unreachable);
      await expect(store.head('p/x')).rejects.toEqual(unreachable);
      await expect(store.delete('p/x')).rejects.toEqual(unreachable);
      await expect(store.list('p/').next()).rejects.toEqual(unreachable);
    };
    await rename(root, join(base, 'away'));
    await expectUnreachable();
    expect(await readdir(base)).toEqual(['away']);
    // What an unmounted disk leaves: the bare mount point.
    await mkdir(root);
    await expectUnreachable();
    expect(await readdir(root)).toEqual([]);
    await rm(root, { recursive: true });
    await rename(join(base, 'away'), root);
    expect((await store.put('p/x', bytes)).outcome).toBe('exists');
    expect((await store.put('p/y', bytes)).outcome).toBe('created');
  });

  it('that vanishes in the middle of a list is not a short list', async () => {
    const root = join(base, 'repository');
    const store = await LocalStore.open(root, { create: true });
    for (let i = 0; i < 80; i += 1) await store.put(`x${i}`, bytes);
    const listing = async () => {
      for await (const { name } of store.list('')) if (name === 'x0') await rename(root, join(base, 'away'));
    };
    await expect(listing()).rejects.toEqual(code('storage.unreachable'));
  });

  it('may lose an empty folder of objects while in use', async () => {
    const store = await openStore(base);
    await store.put('p/x', bytes);
    await store.delete('p/x');
    await rm(join(base, 'p'), { recursive: true });
    expect((await store.put('p/y', bytes)).outcome).toBe('created');
  });
});

describe('names and files', () => {
  it('that stand in each other’s way are a conflict', async () => {
    const store = await LocalStore.open(base);
    await store.put('a/b', bytes);
    await expect(store.put('a', bytes)).rejects.toEqual(code('storage.conflict'));
    await expect(store.put('a/b/c', bytes)).rejects.toEqual(code('storage.conflict'));
    expect(await readdir(join(base, 'tmp'))).toEqual([]);
  });

  it('of others are not listed; folders behind symbolic links are', async () => {
    const store = await LocalStore.open(base);
    await store.put('m/x', bytes);
    const elsewhere = join(base, 'tmp', 'elsewhere');
    await mkdir(elsewhere);
    await writeFile(join(elsewhere, 'y'), 'y');
    await symlink(elsewhere, join(base, 'linked'));
    await symlink('nowhere', join(base, 'broken'));
    await mkdir(join(base, 'lost+found'));
    await writeFile(join(base, 'with space'), '');
    const names: string[] = [];
    for await (const object of store.list('')) names.push(object.name);
    expect(names).toEqual(['linked/y', 'm/x']);
  });

  it('never shows what is in tmp/', async () => {
    const store = await LocalStore.open(base);
    await store.put('a', bytes);
    await writeFile(join(base, 'tmp', 'f'.repeat(32)), 'half');
    const names: string[] = [];
    for await (const object of store.list('')) names.push(object.name);
    expect(names).toEqual(['a']);
  });
});

describe('leftovers in tmp/', () => {
  it('are removed after a day of the store’s own clock, never younger ones, never files of others', async () => {
    await mkdir(join(base, 'tmp'));
    const age = async (name: string, hours: number) => {
      await writeFile(join(base, 'tmp', name), 'half');
      const at = new Date(Date.now() - hours * 3600_000);
      await utimes(join(base, 'tmp', name), at, at);
    };
    await age('a'.repeat(32), 25);
    await age('b'.repeat(32), 23);
    await age('notes.txt', 2500);
    const store = await LocalStore.open(base);
    await store.put('x', bytes);
    await store.close();
    expect((await readdir(join(base, 'tmp'))).sort()).toEqual(['b'.repeat(32), 'notes.txt']);
  });

  it('are not left by puts that succeed or fail', async () => {
    const store = await LocalStore.open(base);
    await store.put('x', bytes);
    await store.put('x', bytes);
    await expect(store.put('x', [Buffer.from('other')])).rejects.toThrow();
    const abort = new AbortController();
    const put = store.put('y', [Buffer.alloc(32 << 20)], { signal: abort.signal });
    setTimeout(() => abort.abort(new Error('stop')), 3);
    await Promise.allSettled([put]);
    expect(await readdir(join(base, 'tmp'))).toEqual([]);
  });
});

describe('addresses', () => {
  it('are paths and file: URLs', async () => {
    for (const address of [base, `file://${base}`, `FILE://${base}`, `${base}/.`]) {
      expect((await openStore(address)).address).toBe(base);
    }
  });

  it.each([
    's3://bucket/x',
    'S3://user:secret@host/x',
    'https://user:secret@host',
    'memory:',
    'file://host/x',
    '',
  ])('%j is refused without repeating secrets', async (address) => {
    const error = await openStore(address).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: 'storage.unsupported', exit: 2 });
    expect((error as Error).message).not.toContain('secret');
    expect((error as { next: string }).next).toContain('file:///');
  });
});

describe('rights', () => {
  it('that let others in are told of, with what closes them', async () => {
    await chmod(base, 0o755);
    const store = await LocalStore.open(base);
    await store.put('keys/x', bytes);
    const [risk, ...more] = await store.checkWritable();
    expect(more).toEqual([]);
    expect(risk?.message).toContain(`${base} has the mode 0755`);
    expect(risk?.remedy).toContain(`chmod -R o-rwx '${base}'`);
    await chmod(join(base, 'keys/x'), 0o644);
    expect((await store.checkWritable())[0]?.message).toContain('and 1 more');
    // Behind a closed folder nobody reaches it.
    await chmod(base, 0o750);
    expect(await store.checkWritable()).toEqual([]);
    expect(await readdir(join(base, 'tmp'))).toEqual([]);
  });
});
