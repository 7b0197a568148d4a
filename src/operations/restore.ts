/** Brings a source back to a moment, into a new folder. */
import { resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { HoldfastError } from '../core/errors.ts';
import { inStep } from '../core/progress.ts';
import type { RepositoryReader } from '../repository/contract.ts';
import type { Problem, Repository } from '../repository/repository.ts';
import type { OwnPlace, Replaced, Restored, SourceKind } from '../sources/source.ts';

export type { OwnPlace, Replaced, Restored } from '../sources/source.ts';

import { catalogueOf, type SourceCatalogue } from './catalogue.ts';
import { planRecovery, type RecoveryPlan } from './recovery-plan.ts';
import type { RecoveryTarget } from './recovery-request.ts';
import type { Workspace } from './workspace.ts';

/** A target as people give it. */
export type WrittenTarget =
  | Exclude<RecoveryTarget, { readonly kind: 'time' | 'position' }>
  /** Microseconds since 1970; `inclusive` (default): with what was committed at exactly that time. */
  | { readonly kind: 'time'; readonly time: bigint; readonly inclusive?: boolean }
  /** `inclusive`: with the record at that position; default: without. */
  | { readonly kind: 'written-position'; readonly text: string; readonly inclusive?: boolean };

export interface RestoreOptions {
  readonly source?: string | undefined;
  /** A position as people write it; turned into the repository's by the source's kind. */
  readonly target: WrittenTarget;
  readonly timeline?: string | undefined;
  /** Folder to restore to, absent or empty. Default: `<source>-restored-<snapshot or time>` in `cwd`. */
  readonly to?: string | undefined;
  readonly cwd: string;
  /** Start the server, replay, and leave it running. */
  readonly start: boolean;
  /** Folders with the server's programs, looked at first. */
  readonly programs?: readonly string[];
  /** Replace the source's own data, which must be on this host, instead of writing a new folder. */
  readonly inPlace?: boolean;
  /** With `inPlace`: also what is too damaged to prove that it is the source's. */
  readonly force?: boolean;
  /** Folders for tablespaces by OID or original folder; relative ones count from `cwd`. */
  readonly places?: ReadonlyMap<string, string>;
}

/** A plan with everything that executing it needs. */
export interface PreparedRestore {
  readonly plan: RecoveryPlan;
  readonly kind: string;
  /** Absolute. */
  readonly to: string;
  readonly start: boolean;
  readonly formatPosition: (position: string) => string;
  /** What will be replaced; null for a new folder. */
  readonly place: OwnPlace | null;
  /** Writes into the new folder; nothing else is changed. Not for a restore in place. */
  execute(context: RunContext): Promise<Restored>;
  /** Replaces what is at `place`. */
  replace(context: RunContext): Promise<{ readonly restored: Restored; readonly replaced: Replaced }>;
}

/** Plans; reads only. Throws what `planRecovery` refuses, `repository.wrong-key`, … */
export async function prepareRestore(
  workspace: Workspace,
  options: RestoreOptions,
  context: RunContext,
): Promise<PreparedRestore> {
  const repository = await workspace.repository(context);
  const catalogue = await catalogueOf(workspace, repository, options.source, context);
  const kind = workspace.kind(catalogue.kind);
  const target = resolveTarget(options.target, kind);
  const reader = await openReader(workspace, repository, context);
  const plan = await inStep(context.progress, 'Plan the recovery', {}, () =>
    plannedWith(reader, { catalogue, target, options, formatPosition: kind.positions.format }, context),
  );
  const force = options.force === true;
  const source = options.inPlace === true ? workspace.source(catalogue.source) : null;
  const place =
    source === null ? null : await source.ownPlace({ ...context, lineage: plan.stop.lineage, force });
  const to = place?.directory ?? resolve(options.cwd, options.to ?? defaultFolder(plan));
  const programs = options.programs ?? [];
  const opened = await reader.openSnapshot(plan.snapshot, context.signal);
  const foreseen = await kind.foresee(opened, programs, context.signal);
  const { sources } = workspace.configuration;
  const configured = Object.hasOwn(sources, catalogue.source) ? sources[catalogue.source] : undefined;
  const request = async (running: RunContext) => ({
    ...running,
    reader,
    snapshot: await reader.openSnapshot(plan.snapshot, running.signal),
    parts: plan.parts,
    stop: plan.stop,
    ...(configured?.kind === catalogue.kind ? { settings: configured.settings } : {}),
    ...(options.programs === undefined ? {} : { programs: options.programs }),
    ...(options.places === undefined ? {} : { places: absolute(options.places, options.cwd) }),
  });
  // In the plan already, so that a dry run refuses what the real one would.
  if (place === null) await kind.checkTarget({ ...(await request(context)), to, start: options.start });
  return {
    plan: { ...plan, warnings: [...plan.warnings, ...damageWarnings(catalogue.problems), ...foreseen] },
    kind: catalogue.kind,
    to,
    start: options.start,
    formatPosition: kind.positions.format,
    place,
    execute: async (running) => {
      if (place !== null) throw new Error('a restore in place replaces; it does not execute');
      return await kind.restore({ ...(await request(running)), to, start: options.start });
    },
    replace: async (running) => {
      if (source === null) throw new Error('nothing is to be replaced');
      return await source.restoreInPlace({ ...(await request(running)), force, start: options.start });
    },
  };
}

function absolute(places: ReadonlyMap<string, string>, cwd: string): Map<string, string> {
  return new Map([...places].map(([name, folder]) => [name, resolve(cwd, folder)]));
}

/** The plan goes around what is damaged, so "the newest moment" may be older than it was: never silently. */
function damageWarnings(problems: readonly Problem[]): string[] {
  const [first] = problems;
  if (first === undefined) return [];
  const more = problems.length === 1 ? '' : ` And ${problems.length - 1} more.`;
  return [
    `The repository is damaged, and this plan goes around it: a newer snapshot or moment may be lost. ${first.message}${more} See all with: holdfast verify`,
  ];
}

/** Every target is exclusive in the end: what begins at or after it is left out. */
function resolveTarget(target: WrittenTarget, kind: SourceKind): RecoveryTarget {
  switch (target.kind) {
    case 'time':
      return { kind: 'time', time: target.inclusive === false ? target.time - 1n : target.time };
    case 'written-position': {
      const position = kind.positions.parse(target.text);
      return {
        kind: 'position',
        position: target.inclusive === true ? kind.positions.behind(position) : position,
      };
    }
    case 'transaction':
      return { ...target, id: kind.transactionId(target.id) };
    default:
      return target;
  }
}

async function openReader(
  workspace: Workspace,
  repository: Repository,
  context: RunContext,
): Promise<RepositoryReader> {
  const unlock = await workspace.requireUnlock(context);
  return await inStep(context.progress, 'Unlock the repository', {}, () =>
    repository.reader(unlock, context),
  );
}

interface Planning {
  readonly catalogue: SourceCatalogue;
  readonly target: RecoveryTarget;
  readonly options: RestoreOptions;
  readonly formatPosition: (position: string) => string;
}

async function plannedWith(
  reader: RepositoryReader,
  { catalogue, target, options, formatPosition }: Planning,
  context: RunContext,
): Promise<RecoveryPlan> {
  const planning = planRecovery({
    source: catalogue.source,
    snapshots: catalogue.snapshots,
    parts: catalogue.parts,
    target,
    lineage: options.timeline ?? null,
    formatPosition,
  });
  let step = planning.next();
  while (!step.done) {
    context.signal.throwIfAborted();
    const part = await reader.openPart(step.value, context.signal);
    step = planning.next(part);
  }
  if (step.value instanceof HoldfastError) throw step.value;
  return step.value;
}

function defaultFolder(plan: RecoveryPlan): string {
  const { source, target } = plan;
  if (target.kind === 'time') {
    const moment = new Date(Number(target.time / 1000n)).toISOString().replaceAll(/[-:]|\.\d+/g, '');
    return `${source}-restored-${moment}`;
  }
  if (target.kind === 'position') return `${source}-restored-${target.position}`;
  if (target.kind === 'transaction') return `${source}-restored-transaction-${target.id}`;
  return `${source}-restored-${target.kind === 'latest' ? 'latest' : plan.snapshot.id}`;
}
