import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { RunContext } from '../core/context.ts';
import { MemoryStore } from '../storage/memory.ts';
import type { FixtureAnswer, FixtureJob } from './block-reader.fixtures.ts';
import type { RepositoryReader } from './contract.ts';
import { facts, fixture, noise, testContext, unlock } from './repository.fixtures.ts';
import { LocalState, Repository } from './repository.ts';
import { workerUrl } from './worker-url.ts';

type Files = Readonly<Record<string, Buffer>>;
const page = 8192;
const day = 86_400_000;

/** The wall clock of the host and the store, for ages. */
class MovingClock {
  ahead = 0;
  now = () => Date.now() + this.ahead;
  monotonic = () => performance.now();
  sleep = testContext().clock.sleep;
}

class Bench {
  readonly clock = new MovingClock();
  readonly context: RunContext = { ...testContext(), clock: this.clock };
  store = new MemoryStore({ clock: this.clock });
  repository!: Repository;
  directory!: string;
  cleanup!: () => Promise<void>;
  #reader: RepositoryReader | undefined;

  static async open(): Promise<Bench> {
    const bench = new Bench();
    const { repository, directory, cleanup } = await fixture(bench.store);
    return Object.assign(bench, { repository, directory, cleanup });
  }

  async reopen(store: MemoryStore): Promise<void> {
    this.store = store;
    this.#reader = undefined;
    this.repository = await Repository.open(
      store,
      await LocalState.open(join(this.directory, 'state')),
      this.context,
    );
  }

  /** Writes files as one block-wise snapshot; `during` runs before it is published. */
  async write(
    files: Files,
    options: { full?: boolean; accept?: boolean; during?: () => void; publish?: boolean } = {},
  ) {
    const { full = false, accept = true, during = () => undefined, publish = true } = options;
    const writer = await this.repository.writer();
    const run = await writer.beginSnapshot({ source: 'db', kind: 'postgres' }, this.context);
    try {
      const seen: string[] = [];
      const blocks = await run.blocks({
        module: workerUrl('block-reader.fixtures'),
        data: null,
        full,
        accept: (text) => {
          seen.push(text);
          return accept;
        },
      });
      blocks.remember('the facts');
      const { previous } = blocks;
      for (const path of Object.keys(files).sort()) {
        const content = files[path] as Buffer;
        const known = await blocks.known(path);
        const job: FixtureJob = {
          bytes: content.length,
          content: new Uint8Array(content),
          known: known === undefined ? null : new Uint8Array(known.hashes),
          knownBytes: known?.size ?? 0,
        };
        const { hashes, runs } = await blocks.read<FixtureAnswer>(job);
        const pieces = [{ offset: 0, length: content.length, hashes, runs }];
        blocks.file({ path, type: 'file', mode: 0o600 }, content.length, pieces);
      }
      during();
      if (!publish) return { previous, seen, stored: run.storedBytes, header: undefined };
      const { header, stats } = await run.publish(facts);
      return { previous, seen, stored: stats.storedBytes, header };
    } finally {
      await run.discard();
    }
  }

  /** The newest snapshot's files, as they are read back with the key. */
  async read(): Promise<Files> {
    const { signal } = this.context;
    const headers = await this.repository.snapshots('db', signal, []);
    const newest = headers.reduce((a, b) => (b.sequence > a.sequence ? b : a));
    // Kept: deriving a key from a passphrase is slow on purpose.
    this.#reader ??= await this.repository.reader(unlock, this.context);
    const reader = this.#reader;
    const snapshot = await reader.openSnapshot(newest, signal);
    const files: Record<string, Buffer> = {};
    for await (const entry of snapshot.entries(signal)) {
      files[entry.path] = Buffer.from(await reader.readEntry(snapshot, entry, signal));
    }
    return files;
  }

  /** Folder of the cache. */
  async cache(): Promise<string> {
    const found = (await readdir(this.directory, { recursive: true })).find((path) =>
      path.endsWith('blocks.json'),
    );
    return join(this.directory, found as string, '..');
  }
}

const open: Bench[] = [];
async function bench(): Promise<Bench> {
  const made = await Bench.open();
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const one of open.splice(0)) await one.cleanup();
});

const large = 40 * page + 100;
const files: Files = { 'base/1': noise(large, 'one'), 'base/2': noise(large, 'two') };

function changed(content: Buffer, block: number, seed: string): Buffer {
  const copy = Buffer.from(content);
  noise(Math.min(page, copy.length - block * page), seed).copy(copy, block * page);
  return copy;
}

/** Enough for everything to be stored; less than one file. */
const everything = 2 * large;

describe('a block-wise snapshot', () => {
  it('stores what changed only, over a chain, and comes back whole each time', async () => {
    const b = await bench();
    let now: Record<string, Buffer> = { ...files };
    expect((await b.write(now)).stored).toBeGreaterThan(everything);
    for (let round = 0; round < 4; round++) {
      now = { ...now, 'base/1': changed(now['base/1'] as Buffer, 7 * round + 1, `change ${round}`) };
      if (round === 1) now['base/0'] = noise(3 * page, 'new, in front');
      if (round === 2) delete now['base/2'];
      // The last block is short, changes, and then the file grows by zeros only.
      if (round === 2) now['base/1'] = changed(now['base/1'] as Buffer, 40, 'short');
      if (round === 3) now['base/1'] = Buffer.concat([now['base/1'] as Buffer, Buffer.alloc(page)]);
      const { stored, previous } = await b.write(now);
      expect(previous).not.toBeNull();
      expect(stored).toBeLessThan(8 * page);
      expect(await b.read()).toEqual(now);
    }
    expect((await b.repository.verify({ depth: 'content', unlock }, b.context)).problems).toEqual([]);
  });

  it('stores everything when told, and goes on from there', async () => {
    const b = await bench();
    await b.write(files);
    const { stored, previous } = await b.write(files, { full: true });
    expect(stored).toBeGreaterThan(everything);
    expect(previous).toBeNull();
    expect((await b.write(files)).stored).toBeLessThan(4 * page);
    expect(await b.read()).toEqual(files);
  });

  it('asks the source whether the snapshot before may be compared with', async () => {
    const b = await bench();
    expect((await b.write(files)).seen).toEqual([]);
    const refused = await b.write(files, { accept: false });
    expect(refused.seen).toEqual(['the facts']);
    expect(refused.stored).toBeGreaterThan(everything);
  });
});

describe('nothing is taken over', () => {
  const full = async (b: Bench) => {
    const { previous, stored } = await b.write(files);
    expect(previous).toBeNull();
    expect(stored).toBeGreaterThan(everything);
    expect(await b.read()).toEqual(files);
  };

  it('when the probe is gone: damage was found, or the store is not what it was', async () => {
    const b = await bench();
    await b.write(files);
    for await (const { name } of b.store.list('probes/')) await b.store.delete(name);
    await full(b);
    expect((await b.write(files)).previous).not.toBeNull();
  });

  it('when that a probe exists is known from a lost answer only', async () => {
    const b = await bench();
    await b.write(files);
    const { put } = b.store;
    b.store.put = async (name, ...rest) => {
      const done = await put.call(b.store, name, ...rest);
      return name.startsWith('probes/') ? { ...done, afterFailure: true } : done;
    };
    await full(b);
  });

  it('when the recipients changed (another epoch)', async () => {
    const b = await bench();
    await b.write(files);
    const cache = join(await b.cache(), 'blocks.json');
    const text = await readFile(cache, 'utf8');
    expect(text).toContain('\\"epoch\\":1');
    // The epoch is under the cache's own seal: forged, it is no cache at all.
    await writeFile(cache, text.replace('\\"epoch\\":1', '\\"epoch\\":2'));
    await full(b);
  });

  it('when the snapshot before is nearly as old as garbage may be, and again when it is fresh', async () => {
    const b = await bench();
    await b.write(files);
    b.clock.ahead = 11.9 * day;
    expect((await b.write(files)).previous).not.toBeNull();
    b.clock.ahead += 12.1 * day;
    await full(b);
  });

  it('and nothing is published when the run itself took too long', async () => {
    const b = await bench();
    const first = await b.write(files);
    await expect(
      b.write(files, {
        during: () => {
          b.clock.ahead = 13.1 * day;
        },
      }),
    ).rejects.toMatchObject({ code: 'repository.reuse-expired' });
    const headers = await b.repository.snapshots('db', b.context.signal, []);
    expect(headers.map(({ id }) => id)).toEqual([first.header?.id]);
  });

  it('when the cache is lost', async () => {
    const b = await bench();
    await b.write(files);
    await rm(await b.cache(), { recursive: true });
    await full(b);
  });

  it('when a byte of the cache is not what was written', async () => {
    const b = await bench();
    await b.write(files);
    const folder = await b.cache();
    const records = (await readdir(folder)).find((name) => name.startsWith('blocks-')) as string;
    const bytes = await readFile(join(folder, records));
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] as number) ^ 1;
    await writeFile(join(folder, records), bytes);
    await full(b);
    await writeFile(join(folder, 'blocks.json'), 'torn{');
    await full(b);
  });

  it('when the cache is of another repository', async () => {
    const [b, other] = [await bench(), await bench()];
    await b.write(files);
    await other.write(files);
    const [from, to] = [await other.cache(), await b.cache()];
    await rm(to, { recursive: true });
    await mkdir(to);
    for (const name of await readdir(from)) await copyFile(join(from, name), join(to, name));
    await full(b);
  });

  it('when the store was created anew under the same address', async () => {
    const b = await bench();
    await b.write(files);
    const before = new Map<string, Uint8Array>();
    for await (const { name } of b.store.list('')) {
      if (!/^(packs|lists|snapshots|probes)\//.test(name))
        before.set(name, await b.store.get(name, { signal: b.context.signal }));
    }
    // Rolled back to before the snapshot: same repository, none of its packs.
    const rolledBack = new MemoryStore({ clock: b.clock });
    Object.defineProperty(rolledBack, 'address', { value: b.store.address });
    for (const [name, bytes] of before) await rolledBack.put(name, [bytes], { signal: b.context.signal });
    await b.reopen(rolledBack);
    await full(b);
  });

  it('from a run that was not published', async () => {
    const b = await bench();
    await b.write(files, { publish: false });
    await full(b);
    const now = { ...files, 'base/1': changed(files['base/1'] as Buffer, 3, 'never published') };
    const given = await b.write(now, { publish: false });
    expect(given.previous).not.toBeNull();
    const { previous, stored } = await b.write(now);
    expect(previous).toBe(given.previous);
    expect(stored).toBeGreaterThan(page);
    expect(await b.read()).toEqual(now);
  });
});
