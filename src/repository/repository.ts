/**
 * The door to the repository. Creating, opening, and the two sides of an opened one: the writer, which needs
 * this host's signing key and no secret that opens backups, and the reader, which needs the decryption identity.
 */
import { randomBytes } from 'node:crypto';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { ObjectStore, StoreRisk } from '../storage/store.ts';
import { type Catalog, type Problem, readLogParts, readSnapshots } from './catalog.ts';
import { base32, base64, SOURCE_NAME } from './codec.ts';
import type {
  LogPartHeader,
  LogWriter,
  RepositoryReader,
  RepositoryWriter,
  SnapshotHeader,
  SnapshotRun,
} from './contract.ts';
import { HeadCache } from './head-cache.ts';
import { type KeyKit, renderKeyKit } from './key-kit.ts';
import {
  describeKeys,
  type KeyInfo,
  openAdminKey,
  openDataKey,
  readKeys,
  type Unlock,
  type WrappedKey,
  type Wrapping,
  wrapKeys,
} from './keys.ts';
import type { LocalState } from './local-state.ts';
import { StoredLogWriter } from './log-writer.ts';
import { PACK_BYTES } from './pack.ts';
import { decodeIdentity, generateIdentity } from './recipient.ts';
import { checkPins, FORMAT, notThePinned, ROOT, type Root, readRoot } from './root.ts';
import {
  encodeRoster,
  type LoadedRoster,
  loadRoster,
  type Roster,
  rosterName,
  rosterWriter,
} from './roster.ts';
import { FRAME_BYTES } from './section.ts';
import { encodeDocument } from './signed-document.ts';
import { generateSeed, type SigningKey, signingKey } from './signing.ts';
import { StoredReader } from './snapshot-reader.ts';
import { StoredSnapshotRun } from './snapshot-run.ts';
import { type VerifyDepth, type VerifyReport, verifyRepository } from './verify.ts';

export type { Problem } from './catalog.ts';
export type * from './contract.ts';
export type { KeyKit } from './key-kit.ts';
export type { KeyInfo, Unlock } from './keys.ts';
export { LocalState } from './local-state.ts';
export type { Roster } from './roster.ts';
export type { VerifyDepth, VerifyReport } from './verify.ts';

export interface CreateOptions {
  /** At least one of the two. */
  readonly passphrase?: string;
  readonly recipients?: readonly string[];
  /** Print the passphrase on the kit: only when it was made up by Holdfast. */
  readonly printPassphrase?: boolean;
  /** What people call this host. */
  readonly writerName: string;
}

export class Repository {
  readonly id: string;
  /** Base64. */
  readonly adminKey: string;
  readonly created: number;
  readonly #root: Root;
  readonly #store: ObjectStore;
  readonly #state: LocalState | null;
  #roster: LoadedRoster;

  private constructor(root: Root, roster: LoadedRoster, store: ObjectStore, state: LocalState | null) {
    this.id = root.id;
    this.adminKey = base64(root.adminKey);
    this.created = root.created;
    this.#root = root;
    this.#roster = roster;
    this.#store = store;
    this.#state = state;
  }

  /**
   * Creates a repository and enrols this host. `holdfast.json` comes last: a killed creation leaves nothing
   * that hinders the next. Throws `repository.exists`, `repository.weak-passphrase`, `repository.bad-recipient`.
   */
  static async create(
    store: ObjectStore,
    state: LocalState,
    options: CreateOptions,
    context: RunContext,
  ): Promise<{ readonly repository: Repository; readonly kit: KeyKit }> {
    const { signal, clock } = context;
    if ((await store.head(ROOT, { signal })) !== undefined) throw exists(store.address);
    // A known repository that is gone is most likely a disk that is not mounted: nothing is put in its place.
    const known = await state.pinOfAddress(store.address);
    if (known !== undefined) throw notThePinned(store.address, undefined, known.repository, state);
    const id = base32(randomBytes(10));
    const identity = generateIdentity();
    const admin = signingKey(generateSeed());
    const host = signingKey(generateSeed());
    const keys = await wrapAll(identity, admin.seed, options);
    const created = clock.now();
    const recipients = [decodeIdentity(identity).recipient];
    const roster: Roster = {
      number: 1,
      previous: null,
      epoch: 1,
      recipients,
      writers: [rosterWriter(host, options.writerName, created)],
    };
    await state.writeSeed(id, host.seed);
    for (const key of keys) await store.put(key.name, [key.content], { signal });
    await store.put(rosterName(id, 1), [encodeRoster(id, roster, admin)], { signal });
    const body = {
      format: FORMAT,
      type: 'repository',
      repository: id,
      created,
      adminKey: base64(admin.publicKey),
      parameters: { packBytes: PACK_BYTES, frameBytes: FRAME_BYTES },
    };
    try {
      await store.put(ROOT, [encodeDocument('repository', body, admin)], { signal });
    } catch (error) {
      if (isHoldfastError(error, 'storage.conflict')) throw exists(store.address);
      throw error;
    }
    const repository = await Repository.open(store, state, context);
    const adminKey = base64(admin.publicKey);
    const printed = options.printPassphrase === true ? options.passphrase : undefined;
    const facts = { repository: id, address: store.address, adminKey, created, recipients, keys };
    const kit = renderKeyKit(printed === undefined ? facts : { ...facts, generatedPassphrase: printed });
    return { repository, kit };
  }

  /**
   * Opens a repository and checks it against what this host pinned. Without `state` nothing is pinned and
   * nothing can be written. Throws `repository.not-found`, `repository.newer-format`,
   * `repository.not-the-pinned-one`, `repository.damaged`.
   */
  static async open(store: ObjectStore, state: LocalState | null, context: RunContext): Promise<Repository> {
    const root = await readRoot(store, context.signal);
    const pin = await checkPins(root, store.address, state);
    const roster = await loadRoster(store, root.id, root.adminKey, pin?.roster ?? 0, context.signal);
    const repository = new Repository(root, roster, store, state);
    if (pin?.roster !== roster.roster.number || pin.address !== store.address) await repository.#pin();
    return repository;
  }

  async #pin(): Promise<void> {
    await this.#state?.writePin({
      repository: this.id,
      address: this.#store.address,
      adminKey: this.adminKey,
      roster: this.#roster.roster.number,
    });
  }

  get address(): string {
    return this.#store.address;
  }

  /** Rejects as a backup would where it cannot be written; resolves with what is risky about who else may read it. */
  async checkWritable(signal: AbortSignal): Promise<readonly StoreRisk[]> {
    return await this.#store.checkWritable({ signal });
  }

  get #catalog(): Catalog {
    return { store: this.#store, repository: this.id, roster: this.#roster };
  }

  roster(): Roster {
    return this.#roster.roster;
  }

  /** Snapshots of one source or all, oldest first, signatures checked. Damage is pushed onto `problems`. */
  async snapshots(
    source: string | null,
    signal: AbortSignal,
    problems: Problem[],
  ): Promise<SnapshotHeader[]> {
    if (source === null || this.#state === null)
      return await readSnapshots(this.#catalog, source, problems, signal);
    const heads = await HeadCache.open(this.#state.source(this.id, source).headsFile);
    const headers = await readSnapshots({ ...this.#catalog, heads }, source, problems, signal);
    await heads.save();
    return headers;
  }

  /** The covering log parts of a source, by lineage and position. Damage is pushed onto `problems`. */
  async logParts(source: string, signal: AbortSignal, problems: Problem[]): Promise<LogPartHeader[]> {
    return await readLogParts(this.#catalog, source, problems, signal);
  }

  /** Names of the sources that have a snapshot or a log here. */
  async sources(signal: AbortSignal): Promise<string[]> {
    const names = new Set<string>();
    for (const area of ['snapshots/', 'logs/']) {
      let after: string | undefined;
      for (;;) {
        const next = await first(
          this.#store.list(area, after === undefined ? { signal } : { after, signal }),
        );
        if (next === undefined) break;
        const [, source = '', inside] = next.name.split('/');
        // A stray file is no folder of a source.
        if (inside !== undefined && SOURCE_NAME.test(source)) names.add(source);
        // Skips the rest of this source: '~' sorts behind every character that a name may have.
        after = inside === undefined ? next.name : `${area}${source}/~`;
      }
    }
    return [...names].sort();
  }

  async #hostKey(): Promise<SigningKey | undefined> {
    const seed = await this.#state?.readSeed(this.id);
    return seed === undefined ? undefined : signingKey(seed);
  }

  /** Whether this host may write. */
  async isEnrolled(): Promise<boolean> {
    const key = await this.#hostKey();
    return key !== undefined && this.#roster.writer(key.id) !== undefined;
  }

  /** The writing side. Throws `repository.writer-not-enrolled`. */
  async writer(): Promise<RepositoryWriter> {
    const key = await this.#hostKey();
    const state = this.#state;
    if (key === undefined || state === null || this.#roster.writer(key.id) === undefined) {
      throw new HoldfastError(
        'repository.writer-not-enrolled',
        `This host is not enrolled to write to the repository ${this.id} at ${this.address}.`,
      );
    }
    const store = this.#store;
    const roster = this.#roster;
    const repository = this.id;
    return {
      writer: key.id,
      beginSnapshot: async (options, context): Promise<SnapshotRun> => {
        const source = state.source(repository, options.source);
        const lock = await source.lock('backup', `a backup of "${options.source}"`);
        return new StoredSnapshotRun(
          { store, repository, key, roster, state: source, options, context },
          lock,
        );
      },
      openLog: async ({ source, kind }, context): Promise<LogWriter> => {
        const sourceState = state.source(repository, source);
        const lock = await sourceState.lock('capture', `the capture of "${source}"`);
        try {
          const parts = {
            store,
            repository,
            key,
            roster,
            state: sourceState,
            source,
            kind,
            context,
            lock,
          };
          return await StoredLogWriter.open(parts);
        } catch (error) {
          await lock.release();
          throw error;
        }
      },
    };
  }

  /** Enrols this host, making it a signing key when it has none. Needs the admin key. Idempotent. */
  async enrolThisHost(unlock: Unlock, name: string, context: RunContext): Promise<void> {
    if (this.#state === null) throw new Error('enrolling needs local state');
    const admin = await this.#adminKey(unlock, context.signal);
    let key = await this.#hostKey();
    if (key === undefined) {
      key = signingKey(generateSeed());
      await this.#state.writeSeed(this.id, key.seed);
    }
    const added = rosterWriter(key, name, context.clock.now());
    await this.#updateRoster(admin, context.signal, (roster) =>
      roster.writers.some((writer) => writer.id === added.id)
        ? roster
        : { ...roster, writers: [...roster.writers, added] },
    );
  }

  /** Puts the next roster; when another admin was faster, starts again from theirs. */
  async #updateRoster(
    admin: SigningKey,
    signal: AbortSignal,
    change: (roster: Roster) => Roster,
  ): Promise<void> {
    for (;;) {
      const current = this.#roster;
      const changed = change(current.roster);
      if (changed === current.roster) return;
      const next: Roster = { ...changed, number: current.roster.number + 1, previous: current.digest };
      try {
        const content = encodeRoster(this.id, next, admin);
        await this.#store.put(rosterName(this.id, next.number), [content], { signal });
      } catch (error) {
        if (!isHoldfastError(error, 'storage.conflict')) throw error;
      }
      this.#roster = await loadRoster(this.#store, this.id, this.#root.adminKey, next.number, signal);
      await this.#pin();
    }
  }

  async #adminKey(unlock: Unlock, signal: AbortSignal): Promise<SigningKey> {
    const keys = await readKeys(this.#store, signal);
    return await openAdminKey(keys, unlock, (key) => base64(key.publicKey) === this.adminKey);
  }

  async #identity(unlock: Unlock, signal: AbortSignal): Promise<string> {
    const { recipients } = this.#roster.roster;
    // A bare identity of the repository itself opens it as well: what `age -d keys/…` prints.
    if (unlock.identity !== undefined && recipients.includes(decodeIdentity(unlock.identity).recipient)) {
      return unlock.identity.trim();
    }
    const keys = await readKeys(this.#store, signal);
    return await openDataKey(keys, unlock, (secret) => recipients.includes(decodeIdentity(secret).recipient));
  }

  /** The reading side. Throws `repository.wrong-key`, `repository.locked`. */
  async reader(unlock: Unlock, context: RunContext): Promise<RepositoryReader> {
    return await this.#reader(unlock, context.signal);
  }

  async #reader(unlock: Unlock, signal: AbortSignal): Promise<StoredReader> {
    return new StoredReader(this.#store, this.id, this.#roster, await this.#identity(unlock, signal));
  }

  /** Wraps the secrets once more. Needs what opens them now. */
  async addKey(unlock: Unlock, add: Wrapping, context: RunContext): Promise<KeyInfo> {
    const { signal } = context;
    const identity = await this.#identity(unlock, signal);
    const admin = await this.#adminKey(unlock, signal);
    const wrapped = await wrapKeys(identity, admin.seed, add);
    for (const key of wrapped) await this.#store.put(key.name, [key.content], { signal });
    return describeKeys(wrapped)[0] as KeyInfo;
  }

  async keys(signal: AbortSignal): Promise<KeyInfo[]> {
    return describeKeys(await readKeys(this.#store, signal));
  }

  /** The key kit as it would be printed now. */
  async kit(signal: AbortSignal): Promise<KeyKit> {
    const keys = await readKeys(this.#store, signal);
    const { address, adminKey, created } = this;
    return renderKeyKit({
      repository: this.id,
      address,
      adminKey,
      created,
      recipients: this.roster().recipients,
      keys,
    });
  }

  /** Verifies one source or all. Depth `content` needs `unlock`. Damage is in the report, not thrown. */
  async verify(
    options: { readonly depth: VerifyDepth; readonly unlock?: Unlock; readonly source?: string },
    context: RunContext,
  ): Promise<VerifyReport> {
    const sources = options.source === undefined ? await this.sources(context.signal) : [options.source];
    const reader =
      options.depth === 'content' ? await this.#reader(options.unlock ?? {}, context.signal) : undefined;
    return await verifyRepository(this.#catalog, sources, options.depth, reader, context);
  }
}

async function first<T>(items: AsyncIterable<T>): Promise<T | undefined> {
  for await (const item of items) return item;
  return undefined;
}

function exists(address: string): HoldfastError {
  return new HoldfastError(
    'repository.exists',
    `There is a repository at ${address} already; it was not touched.`,
  );
}

async function wrapAll(
  identity: string,
  adminSeed: Uint8Array,
  options: CreateOptions,
): Promise<WrappedKey[]> {
  const keys: WrappedKey[] = [];
  const { passphrase, recipients } = options;
  if (passphrase !== undefined)
    keys.push(...(await wrapKeys(identity, adminSeed, { label: 'passphrase', passphrase })));
  if (recipients !== undefined && recipients.length > 0) {
    keys.push(...(await wrapKeys(identity, adminSeed, { label: 'recipients', recipients })));
  }
  if (keys.length === 0) {
    throw new HoldfastError(
      'repository.locked',
      'A repository needs a passphrase or an age recipient to be opened by.',
    );
  }
  return keys;
}
