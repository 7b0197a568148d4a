/** Names the present moment in the log of sources, so that `restore --name` finds it again. */
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { formatInstant } from '../core/time.ts';
import type { LogPartHeader, Mark, RepositoryReader } from '../repository/contract.ts';
import type { SourceState } from '../repository/local-state.ts';
import type { Problem } from '../repository/repository.ts';
import type { Workspace } from './workspace.ts';

export interface MarkOptions {
  readonly name: string;
  /** Default: all that are configured. */
  readonly sources?: readonly string[];
  /** How long to wait for capture, ms. Default 30,000. */
  readonly waitMs?: number;
}

export interface MarkedSource {
  readonly source: string;
  /** As people write it. */
  readonly position: string;
  /** ISO 8601, by the source's clock. */
  readonly time: string;
  /** In the repository. */
  readonly durable: boolean;
  /** Whether a capture runs that will store it. */
  readonly capturing: boolean;
  /** Whether the names in the log were looked through for this one. */
  readonly checked: boolean;
}

/**
 * Throws `recovery.name-taken` before anything is written when a source's log has that name already, as far as
 * this host can tell: what its own marks were it remembers; the rest of the log needs the key, where one is
 * configured.
 */
export async function mark(
  workspace: Workspace,
  { name, sources, waitMs = 30_000 }: MarkOptions,
  context: RunContext,
): Promise<MarkedSource[]> {
  if (!/^[^\p{Cc}]{1,63}$/u.test(name)) {
    throw new HoldfastError('command.usage', 'A name has 1 to 63 printable characters.');
  }
  const named =
    sources !== undefined && sources.length > 0 ? sources : Object.keys(workspace.configuration.sources);
  const opened = named.length === 0 ? [workspace.source()] : named.map((one) => workspace.source(one));
  const names = await KnownNames.open(workspace, context);
  const checked = new Map<string, boolean>();
  for (const source of opened) checked.set(source.name, await names.refuse(source.name, name));
  const marked: MarkedSource[] = [];
  for (const source of opened) {
    const { format } = workspace.kind(source.kind).positions;
    const done = await source.mark({ ...context, name, deadlineMs: waitMs });
    await names.remember(source.name, { name, position: format(done.position), time: done.time });
    marked.push({
      source: source.name,
      position: format(done.position),
      time: formatInstant(BigInt(done.time)),
      durable: done.durable,
      capturing: done.capturing,
      checked: checked.get(source.name)!,
    });
  }
  return marked;
}

interface Remembered {
  readonly name: string;
  readonly position: string;
  /** Microseconds since 1970. */
  readonly time: number;
}

/** Names of which this host is sure, and, with a key, all of them. */
class KnownNames {
  readonly #workspace: Workspace;
  readonly #context: RunContext;
  readonly #repository: Awaited<ReturnType<Workspace['repository']>>;
  readonly #reader: RepositoryReader | null;

  private constructor(
    workspace: Workspace,
    context: RunContext,
    repository: Awaited<ReturnType<Workspace['repository']>>,
    reader: RepositoryReader | null,
  ) {
    this.#workspace = workspace;
    this.#context = context;
    this.#repository = repository;
    this.#reader = reader;
  }

  static async open(workspace: Workspace, context: RunContext): Promise<KnownNames> {
    const repository = await workspace.repository(context);
    const unlock = await workspace.unlock(context);
    const reader = unlock === null ? null : await repository.reader(unlock, context);
    return new KnownNames(workspace, context, repository, reader);
  }

  /** Resolves with whether all names of the source are known. */
  async refuse(source: string, name: string): Promise<boolean> {
    const own = (await this.#own(source)).find((known) => known.name === name);
    if (own !== undefined) throw taken(source, name, own.position, BigInt(own.time));
    // What is damaged may hold names that nobody can see.
    const problems: Problem[] = [];
    const parts = await this.#repository.logParts(source, this.#context.signal, problems);
    const holders = parts.filter(({ marks = 0 }) => marks > 0);
    if (this.#reader === null) return holders.length === 0 && problems.length === 0;
    const found = await this.#inLog(holders, name, this.#reader);
    if (found === undefined) return problems.length === 0;
    const kind = this.#workspace.kind(holders[0]!.kind);
    throw taken(source, name, kind.positions.format(hexPosition(found.position)), found.time);
  }

  async #inLog(
    holders: readonly LogPartHeader[],
    name: string,
    reader: RepositoryReader,
  ): Promise<Mark | undefined> {
    for (const header of holders) {
      const { marks } = await reader.openPart(header, this.#context.signal);
      const found = marks.find((one) => one.name === name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  async remember(source: string, mark: Remembered): Promise<void> {
    const state = await this.#state(source);
    const lock = await state.lock('marks', `a mark of "${source}"`);
    try {
      await state.write('marks', { marks: [...(await this.#own(source)), mark].map((one) => ({ ...one })) });
    } finally {
      await lock.release();
    }
  }

  async #state(source: string): Promise<SourceState> {
    return (await this.#workspace.state()).source(this.#repository.id, source);
  }

  async #own(source: string): Promise<readonly Remembered[]> {
    const kept = await (await this.#state(source)).read('marks');
    return Array.isArray(kept?.marks) ? (kept.marks as unknown as Remembered[]) : [];
  }
}

function hexPosition(position: bigint): string {
  return position.toString(16).toUpperCase().padStart(16, '0');
}

function taken(source: string, name: string, position: string, time: bigint): HoldfastError {
  return new HoldfastError(
    'recovery.name-taken',
    `The log of ${source} has a point named "${name}" already: at ${position}, set ${formatInstant(time)}.`,
    { next: 'Choose another name, e.g. with the date in it.', details: { source, name, position } },
  );
}
