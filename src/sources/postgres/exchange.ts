/**
 * Exchanges the contents of folders by renaming, entry by entry, with a journal: the folders themselves stay what
 * they are (mount points, owners, modes), nothing is copied, and a run that is killed can be finished or taken
 * back. While it is under way no server can start in the data directory: `global`, which holds pg_control, goes
 * first and comes last.
 */
import { constants, type Dirent } from 'node:fs';
import { access, lstat, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError, systemErrorCode } from '../../core/errors.ts';
import { makeFolder, syncFolder, writeDurably } from './durable-file.ts';
import type { ServerUser } from './server-user.ts';

/** Folders of ours in a place that is exchanged stay where they are, and so does what belongs to its file system. */
const staying = new Set(['.holdfast', 'lost+found']);
/** Without it a data directory is none. */
const vital = 'global';

/** All three on one file system. */
export interface Spot {
  /** What is in use. */
  readonly live: string;
  /** What comes in, and where what was there goes. */
  readonly incoming: string;
  readonly outgoing: string;
}

export interface Journal {
  /** `20261121T101530Z`, with a number behind it where needed. */
  readonly id: string;
  readonly kind: 'restore' | 'undo';
  /** `preparing`: `live` is untouched. `moving`: under way. `done`: `outgoing` is what was there before. */
  readonly state: 'preparing' | 'moving' | 'done' | 'taken-back';
  /** The first is the data directory. */
  readonly spots: readonly (Spot & { readonly out: readonly string[]; readonly in: readonly string[] })[];
}

/** The journals of one data directory, in a folder each. */
export class ExchangeArea {
  readonly root: string;
  readonly #owner: ServerUser | undefined;
  readonly #beforeMove: () => void;

  /** `beforeMove` is called before each renaming; what it throws leaves the exchange where it is, as a kill would. */
  constructor(root: string, owner: ServerUser | undefined, beforeMove: () => void = () => undefined) {
    this.root = root;
    this.#owner = owner;
    this.#beforeMove = beforeMove;
  }

  folder(id: string): string {
    return join(this.root, id);
  }

  /** Newest first. */
  async journals(): Promise<Journal[]> {
    const found: Journal[] = [];
    for (const { name } of await entries(this.root)) {
      try {
        found.push(JSON.parse(await readFile(join(this.root, name, 'journal.json'), 'utf8')) as Journal);
      } catch (error) {
        if (systemErrorCode(error) !== 'ENOENT' && systemErrorCode(error) !== 'ENOTDIR') throw error;
      }
    }
    return found.sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  /** Writes down what will be exchanged. Nothing is moved yet. */
  async prepare(id: string, kind: Journal['kind'], spots: readonly Spot[]): Promise<Journal> {
    const journal: Journal = {
      id,
      kind,
      state: 'preparing',
      spots: spots.map((spot) => ({ ...spot, out: [], in: [] })),
    };
    await makeFolder(this.root, this.#owner);
    await makeFolder(this.folder(id), this.#owner);
    await this.#write(journal);
    return journal;
  }

  /** Moves what is live out and what waits in. Durable when it resolves. */
  async exchange(prepared: Journal): Promise<Journal> {
    const spots = [];
    for (const spot of prepared.spots) {
      const out = (await entries(spot.live)).map(({ name }) => name).filter((name) => !staying.has(name));
      const incoming = (await entries(spot.incoming)).map(({ name }) => name);
      spots.push({ ...spot, out: ordered(out), in: ordered(incoming).reverse() });
    }
    const journal: Journal = { ...prepared, state: 'moving', spots };
    await this.#write(journal);
    return this.finish(journal);
  }

  /** Goes on with what was begun, also where it was being taken back. */
  async finish(journal: Journal): Promise<Journal> {
    for (const { live, outgoing, out } of journal.spots) await this.#fill(outgoing, out, live);
    // The data directory last: with its `global` in place everything else is.
    for (const { live, incoming, in: names } of [...journal.spots].reverse()) {
      await this.#empty(incoming, names, live);
    }
    for (const { incoming } of journal.spots) await removeEmpty(incoming);
    return this.#settle(journal, 'done');
  }

  /** The other way: what was live becomes live again. */
  async takeBack(journal: Journal): Promise<Journal> {
    for (const { live, incoming, in: names } of journal.spots) {
      await this.#fill(incoming, [...names].reverse(), live);
    }
    for (const { live, incoming, outgoing, out } of journal.spots) {
      // The last renaming was done and only the journal not: a server may have been started, and left its files.
      const since = [];
      for (const name of out) {
        if ((await exists(join(outgoing, name))) && (await exists(join(live, name)))) since.push(name);
      }
      await this.#fill(incoming, since, live);
    }
    for (const { live, outgoing, out } of [...journal.spots].reverse()) {
      await this.#empty(outgoing, [...out].reverse(), live);
    }
    for (const { outgoing } of journal.spots) await removeEmpty(outgoing);
    return this.#settle(journal, 'taken-back');
  }

  /** Deletes what was prepared and never came to be. Never deletes what was live. */
  async discard(journal: Journal): Promise<void> {
    for (const { incoming } of journal.spots) await rm(incoming, { recursive: true, force: true });
    await rm(this.folder(journal.id), { recursive: true, force: true });
  }

  /** What it put aside is in use again, or moved on: there is nothing more in it to go back to. */
  async forget(journal: Journal): Promise<void> {
    await this.#settle(journal, 'taken-back');
  }

  /**
   * Moves the named entries out of `live`. Both sides have entries of the same names, so only the waiting side
   * tells what was moved: what is in it.
   */
  async #fill(waiting: string, names: readonly string[], live: string): Promise<void> {
    if (names.length === 0) return;
    await makeFolder(waiting, this.#owner);
    for (const name of names) {
      if (!(await exists(join(waiting, name)))) await this.#move(name, live, waiting);
    }
    await syncBoth(live, waiting);
  }

  /** Moves the named entries into `live`: those that still wait. */
  async #empty(waiting: string, names: readonly string[], live: string): Promise<void> {
    for (const name of names) {
      if (await exists(join(waiting, name))) await this.#move(name, waiting, live);
    }
    if (await exists(waiting)) await syncBoth(waiting, live);
  }

  async #move(name: string, from: string, to: string): Promise<void> {
    this.#beforeMove();
    if (await exists(join(to, name))) {
      throw new HoldfastError(
        'system.file-failed',
        `${join(from, name)} cannot be moved to ${to}, where something is already.`,
      );
    }
    await rename(join(from, name), join(to, name));
    // What makes a data directory one must be seen to go before, and to come after, everything else.
    if (name === vital) await syncBoth(from, to);
  }

  async #settle(journal: Journal, state: Journal['state']): Promise<Journal> {
    const settled: Journal = { ...journal, state };
    await this.#write(settled);
    return settled;
  }

  async #write(journal: Journal): Promise<void> {
    await writeDurably(
      join(this.folder(journal.id), 'journal.json'),
      `${JSON.stringify(journal, null, 1)}\n`,
      this.#owner,
    );
  }
}

function ordered(names: readonly string[]): string[] {
  return [...names].sort((a, b) => Number(b === vital) - Number(a === vital));
}

async function syncBoth(from: string, to: string): Promise<void> {
  await syncFolder(to);
  await syncFolder(from);
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

async function entries(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

async function removeEmpty(folder: string): Promise<void> {
  if ((await entries(folder)).length === 0) await rm(folder, { recursive: true, force: true });
}

/**
 * Where the area of a data directory is: beside it where renaming works from there, else (a mount point, a
 * parent that is closed) inside of it.
 */
export async function areaOf(
  directory: string,
): Promise<{ readonly root: string; readonly inside: boolean }> {
  const beside = `${directory}.holdfast`;
  try {
    if ((await lstat(directory)).dev === (await lstat(dirname(directory))).dev) {
      await access((await exists(beside)) ? beside : dirname(directory), constants.W_OK);
      return { root: beside, inside: false };
    }
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS'].includes(systemErrorCode(error) ?? '')) throw error;
  }
  return { root: join(directory, '.holdfast'), inside: true };
}
