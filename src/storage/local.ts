/**
 * A store that is a folder.
 *
 * An object is written under a random name in `tmp/`, fsynced, linked to its final name (which fails where that
 * name is taken, unlike rename), and made durable by fsyncing its folder. So a final name never shows a partial
 * object, whatever is killed, and nothing is ever replaced. Rename with a check before it was rejected: two
 * writers can pass the check together. All of it works in folders that are append-only (`chattr +a`).
 *
 * The digest in `PutOptions` is not looked at here: between the caller's buffers and the kernel there is no wire
 * on which bytes could change, and hashing a pack again would cost as much as writing it.
 */
import { constants } from 'node:fs';
import { chmod, type FileHandle, link, mkdir, open, stat, unlink } from 'node:fs/promises';
import { dirname, join, posix, resolve } from 'node:path';
import { HoldfastError, systemErrorCode } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import { WorkingArea, type Written } from './local-area.ts';
import { localError } from './local-errors.ts';
import { fsyncDirectory, holds, readRange } from './local-file.ts';
import { walkLocal } from './local-list.ts';
import { examineRights } from './local-rights.ts';
import { checkObjectName, reservedArea } from './name.ts';
import { resolveRange } from './range.ts';
import type {
  GetOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutResult,
  StoreCapabilities,
  StoreRisk,
} from './store.ts';

const folderMode = 0o750;
const setgid = 0o2000;

export interface LocalStoreOptions {
  /** Creates the folder (and those above it) when it is not there. Default: it must exist. */
  readonly create?: boolean;
  /** Told once about leftovers that cannot be removed. */
  readonly log?: Logger;
}

export class LocalStore implements ObjectStore {
  readonly address: string;
  readonly capabilities: StoreCapabilities = {
    delete: true,
    list: true,
    read: true,
    versions: false,
    objectLock: false,
  };
  readonly #root: string;
  readonly #area: WorkingArea;
  /** Folders whose entry in their parent is known to be durable, or about to be. */
  readonly #durable = new Map<string, Promise<void>>();
  /**
   * Once `tmp/` was seen, its absence means that the disk was unmounted and the bare mount point is left:
   * writing on there would fill the wrong disk and reading would find nothing.
   */
  #hasArea = false;

  private constructor(root: string, log: Logger | undefined) {
    this.address = root;
    this.#root = root;
    this.#area = new WorkingArea(root, log);
  }

  /**
   * Opens the store in the folder `path`. Creates nothing unless `create` is given; then the folder and those
   * above it are durable when this resolves. Rejects with `storage.unreachable` where there is no such folder.
   */
  static async open(path: string, options: LocalStoreOptions = {}): Promise<LocalStore> {
    const root = resolve(path);
    try {
      if (options.create) await createRoot(root);
      if (!(await stat(root)).isDirectory()) {
        throw new HoldfastError(
          'storage.unreachable',
          `The repository's address ${root} is a file, not a folder.`,
          {
            next: `Give the path of a folder; see \`ls -ld ${root}\`.`,
          },
        );
      }
      const store = new LocalStore(root, options.log);
      store.#hasArea = await isThere(store.#area.path);
      return store;
    } catch (error) {
      throw localError(error, 'open the store', root);
    }
  }

  put(name: string, content: readonly Uint8Array[], options: PutOptions = {}): Promise<PutResult> {
    return this.#mapped(`write ${name}`, async () => {
      checkObjectName(name);
      const { signal } = options;
      signal?.throwIfAborted();
      const earlier = await this.#confirm(name, content, signal);
      if (earlier !== undefined) return earlier;
      if (!this.#hasArea) {
        await this.#durableFolder(reservedArea);
        this.#hasArea = true;
      }
      const written = await this.#area.write(content, signal);
      try {
        // After an abort the caller may reuse its buffers, so nothing may appear any more: this is the last look.
        await this.#durableFolder(posix.dirname(name));
        signal?.throwIfAborted();
        return await this.#publish(name, written, content, signal);
      } finally {
        await this.#area.discard(written.path);
        this.#area.clean(written.storedAt);
      }
    });
  }

  get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    return this.#mapped(`read ${name}`, async () => {
      checkObjectName(name);
      options.signal?.throwIfAborted();
      const handle = await this.#openObject(name);
      if (handle === undefined) {
        throw new HoldfastError('storage.not-found', `The store ${this.address} has no object ${name}.`);
      }
      try {
        const { start, end } = resolveRange((await handle.stat()).size, options);
        return await readRange(handle, start, end, options.signal);
      } finally {
        await handle.close();
      }
    });
  }

  head(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<ObjectInfo | undefined> {
    return this.#mapped(`look for ${name}`, async () => {
      checkObjectName(name);
      options.signal?.throwIfAborted();
      try {
        const file = await stat(join(this.#root, name));
        return file.isFile() ? { name, bytes: file.size, storedAt: Math.floor(file.mtimeMs) } : undefined;
      } catch (error) {
        return await this.#missing(error);
      }
    });
  }

  async *list(
    prefix: string,
    options: { readonly after?: string; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<ObjectInfo> {
    options.signal?.throwIfAborted();
    try {
      yield* walkLocal({
        root: this.#root,
        prefix,
        after: options.after ?? '',
        signal: options.signal,
        whenMissing: () => this.#reachable(),
      });
    } catch (error) {
      throw localError(error, `list ${JSON.stringify(prefix)}`, this.#root);
    }
  }

  delete(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return this.#mapped(`delete ${name}`, async () => {
      checkObjectName(name);
      options.signal?.throwIfAborted();
      const path = join(this.#root, name);
      try {
        await unlink(path);
      } catch (error) {
        if (systemErrorCode(error) === 'EISDIR') return;
        await this.#missing(error);
      }
      // Also where it was gone already: whoever removed it may not have made that durable.
      try {
        await fsyncDirectory(dirname(path));
      } catch (error) {
        await this.#missing(error);
      }
    });
  }

  checkWritable(options: { readonly signal?: AbortSignal } = {}): Promise<readonly StoreRisk[]> {
    return this.#mapped('write a trial file', async () => {
      const { signal } = options;
      signal?.throwIfAborted();
      await this.#durableFolder(reservedArea);
      const { path } = await this.#area.write([Buffer.from('trial')], signal);
      await this.#area.discard(path);
      return await examineRights(this.#root, signal);
    });
  }

  async close(): Promise<void> {
    await this.#area.cleaned();
  }

  async #mapped<T>(doing: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw localError(error, doing, this.#root);
    }
  }

  /** Swallows "there is no such object", after making sure that it is not the store that is gone. */
  async #missing(error: unknown): Promise<undefined> {
    const code = systemErrorCode(error);
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
    await this.#reachable();
    return undefined;
  }

  async #reachable(): Promise<void> {
    if (await isThere(this.#hasArea ? this.#area.path : this.#root)) return;
    const detail = (await isThere(this.#root))
      ? `${this.#root} has lost its folder ${reservedArea}/: its disk was probably unmounted`
      : `${this.#root} is gone`;
    throw new HoldfastError('storage.unreachable', `The repository's folder cannot be reached: ${detail}.`, {
      next: `See \`findmnt -T ${this.#root}\`, mount its disk again, then run the command again.`,
      details: { root: this.#root },
    });
  }

  async #openObject(name: string): Promise<FileHandle | undefined> {
    let handle: FileHandle;
    try {
      handle = await open(join(this.#root, name), constants.O_RDONLY);
    } catch (error) {
      return await this.#missing(error);
    }
    try {
      if ((await handle.stat()).isFile()) return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
    await handle.close();
    return undefined;
  }

  /** Where the object exists: proves that it holds `content`, makes it durable, and answers 'exists'. */
  async #confirm(
    name: string,
    content: readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<PutResult | undefined> {
    const handle = await this.#openObject(name);
    if (handle === undefined) return undefined;
    try {
      if (!(await holds(handle, content, signal))) throw conflict(this.address, name, 'holds other bytes');
      // Who linked it may have been killed before its own fsyncs.
      await handle.sync();
      await this.#durableFolder(posix.dirname(name));
      await fsyncDirectory(dirname(join(this.#root, name)));
      return { outcome: 'exists', storedAt: Math.floor((await handle.stat()).mtimeMs) };
    } finally {
      await handle.close();
    }
  }

  async #publish(
    name: string,
    written: Written,
    content: readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<PutResult> {
    const path = join(this.#root, name);
    try {
      await link(written.path, path);
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw await this.#linkError(error, written.path);
      // A network file system may repeat a link whose answer got lost, and then complains of its own success.
      if (!(await isSameFile(written.path, path))) {
        const confirmed = await this.#confirm(name, content, signal);
        if (confirmed === undefined) throw conflict(this.address, name, 'is a folder there');
        return confirmed;
      }
    }
    // Should this fail, the name stays: another writer may have been told that it exists. A journal that cannot be
    // written turns the file system read-only, so a later fsync does not hide the failure as it would for bytes.
    await fsyncDirectory(dirname(path));
    return { outcome: 'created', storedAt: written.storedAt };
  }

  /** Tells a file system without hard links from a folder that refuses this one: both may answer EPERM. */
  async #linkError(error: unknown, temporary: string): Promise<unknown> {
    const code = systemErrorCode(error) ?? '';
    if (code === 'ENOENT') {
      // A folder was removed behind our back; what is remembered as durable is worthless, the next try starts over.
      this.#durable.clear();
      return error;
    }
    if (code === 'EPERM') {
      const second = this.#area.newPath();
      try {
        await link(temporary, second);
      } catch (again) {
        return systemErrorCode(again) === 'EPERM' ? noLinks(this.#root, again) : error;
      }
      await this.#area.discard(second);
      return error;
    }
    return ['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EXDEV'].includes(code) ? noLinks(this.#root, error) : error;
  }

  /** Makes sure that the folder exists and that its entry, and those above it, survive a loss of power. */
  #durableFolder(folder: string): Promise<void> {
    if (folder === '.') return Promise.resolve();
    const known = this.#durable.get(folder);
    if (known !== undefined) return known;
    const making = this.#makeFolder(folder);
    this.#durable.set(folder, making);
    making.catch(() => this.#durable.delete(folder));
    return making;
  }

  async #makeFolder(folder: string): Promise<void> {
    const parent = posix.dirname(folder);
    await this.#durableFolder(parent);
    const path = join(this.#root, folder);
    try {
      await mkdir(path, folderMode);
      await setFolderMode(path);
    } catch (error) {
      if (systemErrorCode(error) !== 'EEXIST') throw error;
      if (!(await stat(path)).isDirectory())
        throw conflict(this.address, folder, 'is an object, not a folder');
    }
    // Also where it was there already: the process that made it may not have come to its fsync yet.
    await fsyncDirectory(join(this.#root, parent));
  }
}

async function createRoot(root: string): Promise<void> {
  const first = await mkdir(root, { recursive: true, mode: folderMode });
  if (first === undefined) return;
  for (let made = root; ; made = dirname(made)) {
    await setFolderMode(made);
    await fsyncDirectory(dirname(made));
    if (made === resolve(first)) return;
  }
}

/** Gives a new folder its mode whatever the umask, keeping an inherited setgid bit: groups share repositories by it. */
async function setFolderMode(path: string): Promise<void> {
  await chmod(path, folderMode | ((await stat(path)).mode & setgid));
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) return false;
    throw error;
  }
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([stat(a), stat(b)]);
  return one.ino === other.ino && one.dev === other.dev;
}

function conflict(address: string, name: string, what: string): HoldfastError {
  return new HoldfastError(
    'storage.conflict',
    `The object ${name} in ${address} ${what}; it was left untouched.`,
    {
      details: { name },
    },
  );
}

function noLinks(root: string, cause: unknown): HoldfastError {
  return new HoldfastError(
    'storage.no-links',
    `The file system of ${root} does not make hard links within that folder (${systemErrorCode(cause)}), so nothing can be published safely there.`,
    { cause, details: { root } },
  );
}
