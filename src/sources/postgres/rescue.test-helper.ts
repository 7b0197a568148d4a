/**
 * For tests: a source with a real server, snapshots and log of it in a real repository, and restores from there.
 * The log is taken from the server's own pg_wal and cut into parts at odd places.
 */
import { chmod, mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { type PostgresMajor, postgresBinaries } from '../../../scripts/rig.ts';
import type { Commit, LogPartHeader, OpenedSnapshot, RepositoryReader } from '../../repository/contract.ts';
import { LocalState, Repository } from '../../repository/repository.ts';
import { openStore } from '../../storage/open.ts';
import { openSource } from '../open.ts';
import type { Restored, StopAt } from '../source.ts';
import { testContext } from './memory-repository.test-helper.ts';
import { lineageOf, lsnOf, parseLsn, positionOf, segmentName, segmentStart } from './position.ts';
import { restoreCluster } from './restore.ts';
import { connectScratch, type ScratchAddress } from './scratch-connection.ts';
import { initScratchCluster, type ScratchServer, startServer } from './server.ts';
import { WalScanner } from './wal-records.ts';

export async function ask<T>(address: ScratchAddress, sql: string): Promise<T[]> {
  const client = await connectScratch(address, { timeoutMs: 10_000 });
  try {
    return (await client.query(sql)).rows as T[];
  } finally {
    await client.end();
  }
}

/** The only column of the only row. */
export async function one<T>(address: ScratchAddress, sql: string): Promise<T> {
  const [row] = await ask<Record<string, T>>(address, sql);
  return Object.values(row!)[0] as T;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export function addressOf(restored: Restored): ScratchAddress {
  const url = new URL(restored.server!.connection.replace('@/', '@x/'));
  return {
    host: url.searchParams.get('host')!,
    port: Number(url.searchParams.get('port')),
    user: 'postgres',
    database: 'postgres',
  };
}

export interface RescueOptions {
  readonly major?: PostgresMajor;
  readonly settings?: Readonly<Record<string, string>>;
  /** On the command line of the source. */
  readonly overrides?: Readonly<Record<string, string>>;
  /** Where `prepare` put postgresql.conf, below the root, when not in the data directory. */
  readonly configAt?: string;
  /** Between initdb and start. */
  readonly prepare?: (dataDir: string, root: string) => Promise<void>;
}

export interface RestoreChoices {
  readonly parts?: readonly LogPartHeader[];
  readonly start?: boolean;
  readonly reader?: RepositoryReader;
  readonly signal?: AbortSignal;
  readonly places?: ReadonlyMap<string, string>;
}

const segmentSize = 2 ** 20;

export class Rescue {
  readonly root: string;
  readonly binDir: string;
  readonly source: ScratchServer;
  readonly repository: Repository;
  readonly reader: RepositoryReader;
  readonly systemId: string;
  /** The age identity that opens the repository. */
  readonly identity: string;
  snapshot!: OpenedSnapshot;
  /** In all that was captured of timeline 1. */
  readonly commits: Commit[] = [];
  #running: Restored[] = [];

  private constructor(
    root: string,
    source: ScratchServer,
    repository: Repository,
    reader: RepositoryReader,
    systemId: string,
    identity: string,
  ) {
    this.root = root;
    this.binDir = source.binDir;
    this.source = source;
    this.repository = repository;
    this.reader = reader;
    this.systemId = systemId;
    this.identity = identity;
  }

  static async begin(options: RescueOptions = {}): Promise<Rescue> {
    const root = await mkdtemp('/tmp/holdfast-test-');
    await chmod(root, 0o755);
    const { binDir } = await postgresBinaries(options.major ?? 15);
    const dataDir = join(root, 'source');
    await initScratchCluster({
      binDir,
      dataDir,
      args: ['--wal-segsize=1', '--data-checksums'],
      settings: {
        ...{ shared_buffers: '16MB', wal_keep_size: '2GB', max_wal_senders: '8', autovacuum: 'off' },
        ...options.settings,
      },
    });
    await options.prepare?.(dataDir, root);
    const source = await startServer({
      binDir,
      dataDir,
      settings: { fsync: 'off', ...options.overrides },
      ...(options.configAt === undefined ? {} : { configFile: join(root, options.configAt) }),
      hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'],
    });
    const context = testContext();
    const identity = await generateIdentity();
    const { repository } = await Repository.create(
      await openStore(join(root, 'repository'), { create: true }),
      await LocalState.open(join(root, 'state')),
      { recipients: [await identityToRecipient(identity)], writerName: 'test' },
      context,
    );
    const reader = await repository.reader({ identity }, context);
    const systemId = await one<string>(
      source.connection,
      'SELECT system_identifier::text FROM pg_control_system()',
    );
    return new Rescue(root, source, repository, reader, systemId, identity);
  }

  /** `settings`: of the source, beside its address. */
  async takeSnapshot(settings: object = {}): Promise<void> {
    const context = testContext();
    const url = `postgresql://postgres@127.0.0.1:${this.source.port}/postgres`;
    const writer = await this.repository.writer();
    const run = await writer.beginSnapshot({ source: 'ledger', kind: 'postgres' }, context);
    const facts = await openSource('ledger', 'postgres', { url, ...settings }).snapshot({
      ...context,
      sink: run,
    });
    const { header } = await run.publish(facts);
    this.snapshot = await this.reader.openSnapshot(header, context.signal);
  }

  /** Appends what the source wrote since the snapshot began, or since `from`. Resolves with its end. */
  async capture(from = lsnOf(this.snapshot.header.from)): Promise<bigint> {
    return this.captureOf(this.source, 1, from, this.commits);
  }

  /** Appends what a server wrote on a timeline. */
  async captureOf(
    server: { readonly dataDir: string; readonly connection: ScratchAddress },
    timeline: number,
    from: bigint,
    commits: Commit[],
  ): Promise<bigint> {
    const wal = join(server.dataDir, 'pg_wal');
    const histories: Record<string, string> = {};
    for (const name of await readdir(wal)) {
      if (name.endsWith('.history')) histories[name] = await readFile(join(wal, name), 'utf8');
    }
    const to = parseLsn(await one<string>(server.connection, 'SELECT pg_current_wal_flush_lsn()'));
    const lineage = lineageOf(this.systemId, timeline);
    const ancestors =
      timeline === 1 ? [] : [{ lineage: lineageOf(this.systemId, timeline - 1), position: positionOf(from) }];
    const writer = await (await this.repository.writer()).openLog(
      { source: 'ledger', kind: 'postgres' },
      testContext(),
    );
    const scanner = new WalScanner(from, { segmentSize });
    writer.startStream();
    let at = from;
    for (let piece = 700_001; at < to; piece = (piece * 7) % 1_000_003) {
      const bytes = await readWal(wal, timeline, at, Math.min(piece, Number(to - at)));
      scanner.push(bytes);
      const found = scanner.takeCommits();
      commits.push(...found);
      const end = at + BigInt(bytes.length);
      // As a capture does: with the first part only.
      const meta = { recordEnd: positionOf(scanner.complete), ...(at === from ? { histories } : {}) };
      await writer.append(
        {
          lineage,
          ancestors,
          from: positionOf(at),
          to: positionOf(end),
          data: [bytes],
          commits: found,
          marks: scanner.takeRestorePoints(),
          meta,
        },
        new AbortController().signal,
      );
      at = end;
    }
    await writer.close();
    return at;
  }

  async parts(timeline?: number): Promise<LogPartHeader[]> {
    const all = await this.repository.logParts('ledger', new AbortController().signal, []);
    return timeline === undefined
      ? all
      : all.filter((part) => part.lineage === lineageOf(this.systemId, timeline));
  }

  latest(timeline = 1): StopAt {
    return {
      before: null,
      lineage: lineageOf(this.systemId, timeline),
      lastCommit: positionOf(this.commits.at(-1)!.position),
      firstExcluded: null,
    };
  }

  /** Just before that commit of the source. */
  before(index: number): StopAt {
    const at = index < 0 ? this.commits.length + index : index;
    const position = positionOf(this.commits[at]!.position);
    return {
      before: position,
      lineage: lineageOf(this.systemId, 1),
      lastCommit: positionOf(this.commits[at - 1]!.position),
      firstExcluded: position,
    };
  }

  async restore(name: string, stop: StopAt, choices: RestoreChoices = {}): Promise<Restored> {
    const restored = await restoreCluster({
      ...testContext(choices.signal),
      reader: choices.reader ?? this.reader,
      snapshot: this.snapshot,
      parts: choices.parts ?? (await this.parts()),
      stop,
      to: join(this.root, name),
      start: choices.start ?? true,
      ...(choices.places === undefined ? {} : { places: choices.places }),
      programs: [this.binDir],
    });
    if (restored.server !== null) this.#running.push(restored);
    return restored;
  }

  /** Ends what was restored and started. */
  async endRestored(): Promise<void> {
    const pids = this.#running.map(({ server }) => server!.pid);
    this.#running = [];
    for (const pid of pids) process.kill(pid, 'SIGQUIT');
    for (const pid of pids) while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  async end(): Promise<void> {
    await this.endRestored();
    await this.source.stop('immediate');
    await rm(this.root, { recursive: true, force: true });
  }
}

/** At most to the end of the segment. */
async function readWal(wal: string, timeline: number, at: bigint, length: number): Promise<Buffer> {
  const offset = Number(at - segmentStart(at, segmentSize));
  const file = await open(join(wal, segmentName(timeline, at, segmentSize)), 'r');
  try {
    const room = Math.min(length, segmentSize - offset);
    const { bytesRead, buffer } = await file.read(Buffer.alloc(room), 0, room, offset);
    if (bytesRead !== room) throw new Error(`the log at ${at} is shorter than the server said`);
    return buffer;
  } finally {
    await file.close();
  }
}

/** An object whose methods may be called on a copy. */
export function bound<T extends object>(object: T): T {
  const copy: Record<string, unknown> = {};
  for (let at = object; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) {
      if (name === 'constructor' || name in copy) continue;
      const value = Reflect.get(object, name);
      copy[name] = typeof value === 'function' ? value.bind(object) : value;
    }
  }
  return copy as T;
}
