/** What planning refuses, in words: why, and the nearest moments that can be restored. Pure. */
import { HoldfastError } from '../core/errors.ts';
import { formatInstant } from '../core/time.ts';
import type { Commit, SnapshotHeader } from '../repository/contract.ts';
import { type CommitIndex, commitPosition, type Lookup } from './recovery-commits.ts';
import { compare, type History, type Stretch } from './recovery-history.ts';
import { describeTarget, type NamedTarget, type Place } from './recovery-places.ts';
import type { RecoveryRequest } from './recovery-request.ts';
import { momentsOf } from './recovery-time.ts';

export class RecoveryRefusals {
  readonly #request: RecoveryRequest;
  readonly #commits: CommitIndex;

  constructor(request: RecoveryRequest, commits: CommitIndex) {
    this.#request = request;
    this.#commits = commits;
  }

  nothing(): HoldfastError {
    const { source } = this.#request;
    return new HoldfastError(
      'recovery.nothing-to-restore',
      `The repository holds no snapshot of ${source} that could be restored.`,
      { next: `Take one: holdfast backup ${source}`, details: { source } },
    );
  }

  unknownSnapshot(id: string, matching: readonly SnapshotHeader[]): HoldfastError {
    const { source, snapshots } = this.#request;
    if (matching.length > 1) {
      return new HoldfastError(
        'recovery.unknown-snapshot',
        `The id ${id} fits ${matching.length} snapshots of ${source}: ${matching.map((s) => s.id).join(', ')}.`,
        { next: 'Give more of the id.', details: { source, snapshot: id } },
      );
    }
    const newest = [...snapshots].sort((a, b) => compare(a.id, b.id)).at(-1);
    return new HoldfastError('recovery.unknown-snapshot', `There is no snapshot ${id} of ${source}.`, {
      next: `See them with: holdfast list ${source}. The newest is ${newest?.id}.`,
      details: { source, snapshot: id },
    });
  }

  unknownLineage(all: readonly History[]): HoldfastError {
    const { source, lineage } = this.#request;
    const known = all.map((history) => history.lineage);
    return new HoldfastError(
      'recovery.unknown-timeline',
      `The repository knows no timeline ${lineage} of ${source}; it knows ${known.join(', ')}.`,
      { next: 'Give one of these to --timeline, or leave it out.', details: { source, known } },
    );
  }

  ambiguousLineage(lineages: readonly string[]): HoldfastError {
    const { source } = this.#request;
    const names = [...new Set(lineages)].sort(compare);
    const first = names.at(-1)!;
    return new HoldfastError(
      'recovery.ambiguous-timeline',
      `Several histories of ${source} hold that moment, and they differ: ${names.join(' and ')}.`,
      {
        next: `Say which one with --timeline, e.g. --timeline ${first.slice(first.lastIndexOf('/') + 1)}. \`holdfast list ${source}\` shows when each was written.`,
        details: { source, timelines: names },
      },
    );
  }

  ambiguousTime(time: bigint, first: Commit | null, second: Commit | null): HoldfastError {
    const { source } = this.#request;
    const places = [first, second].map((commit) =>
      commit === null ? null : this.#request.formatPosition(commitPosition(commit)),
    );
    const [one, two] = places;
    return new HoldfastError(
      'recovery.ambiguous-time',
      `The clock of ${source} was set back over ${formatInstant(time)}: that moment was passed twice, before ${one ?? 'the end of the log'} and before ${two ?? 'the end of the log'}.`,
      {
        next: `Say which one: --lsn ${one ?? two} for the first${two === null ? ', or no target at all for the newest moment' : `, --lsn ${two} for the second`}.`,
        details: { source, time: formatInstant(time), first: one ?? null, second: two ?? null },
      },
    );
  }

  unknownTarget(target: NamedTarget): HoldfastError {
    const { source } = this.#request;
    const why =
      target.kind === 'name'
        ? ''
        : ' No commit of it is in the log: it was rolled back or still open, wrote nothing, was a subtransaction, or was committed outside the log that is kept.';
    return new HoldfastError(
      'recovery.unknown-target',
      `There is no ${describeTarget(target)} in the log of ${source}.${why}`,
      {
        next:
          target.kind === 'name'
            ? `Names are set with \`holdfast mark NAME ${source}\` or pg_create_restore_point, and can be restored once captured. Give a time with --at or a position with --lsn instead.`
            : 'Give a time with --at or a position with --lsn instead.',
        details: { source, target: describeTarget(target) },
      },
    );
  }

  targetOutside(target: NamedTarget, found: readonly Place[]): HoldfastError {
    const { source, formatPosition, snapshots } = this.#request;
    const at = formatPosition(found[0]!.position);
    const first = [...snapshots]
      .map((snapshot) => snapshot.to)
      .sort(compare)
      .find((to) => to > found[0]!.position);
    return new HoldfastError(
      'recovery.outside-window',
      `The ${describeTarget(target)} lies at ${at}, in no recovery window of ${source}: no snapshot leads to it.`,
      {
        next: `The nearest position after it that can be restored is ${first === undefined ? 'none' : `--lsn ${formatPosition(first)}`}; \`holdfast list ${source}\` shows all windows.`,
        details: { source, position: at, after: first === undefined ? null : formatPosition(first) },
      },
    );
  }

  ambiguousTarget(target: NamedTarget, found: readonly Place[]): HoldfastError {
    const { source, formatPosition } = this.#request;
    const lineages = new Set(found.map(({ lineage }) => lineage));
    const several = lineages.size > 1;
    const places = found.map(({ lineage, position, time }) => {
      const timeline = several ? ` on timeline ${lineage.slice(lineage.lastIndexOf('/') + 1)}` : '';
      return `${formatPosition(position)}${timeline} (${formatInstant(time)})`;
    });
    const first = found.at(-1)!;
    const choice =
      lineages.size === found.length
        ? `--timeline ${first.lineage.slice(first.lineage.lastIndexOf('/') + 1)}`
        : `--lsn ${formatPosition(first.stop)} instead`;
    return new HoldfastError(
      'recovery.ambiguous-target',
      `The ${describeTarget(target)} is in the log of ${source} several times: at ${places.join(' and at ')}.`,
      {
        next: `Say which one, e.g. with ${choice}.`,
        details: { source, positions: found.map(({ position }) => formatPosition(position)) },
      },
    );
  }

  positionOutside(position: string, stretches: readonly Stretch[]): HoldfastError {
    const { source, formatPosition } = this.#request;
    const edges = stretches.flatMap((stretch) => [stretch.snapshots[0]!.to, stretch.to]).sort(compare);
    const before = edges.filter((edge) => edge < position).at(-1) ?? null;
    const after = edges.find((edge) => edge > position) ?? null;
    const text = {
      before: before === null ? null : formatPosition(before),
      after: after === null ? null : formatPosition(after),
    };
    return this.#outside(`the position ${formatPosition(position)}`, '--lsn', text, {
      source,
      position: formatPosition(position),
    });
  }

  /** Looks at the commits of each stretch's edges to name moments that really can be restored. */
  *timeOutside(time: bigint, stretches: readonly Stretch[]): Lookup<HoldfastError> {
    let before: bigint | null = null;
    let after: bigint | null = null;
    let newest = true;
    for (const stretch of stretches) {
      const moments = yield* momentsOf(stretch, this.#commits);
      if (moments === null) continue;
      if (moments.last < time && (before === null || moments.last > before)) before = moments.last;
      if (moments.first > time && (after === null || moments.first < after)) after = moments.first;
      if (moments.last >= time) newest = false;
    }
    const { source, snapshots } = this.#request;
    const text = {
      before: before === null ? null : formatInstant(before),
      after: after === null ? null : formatInstant(after),
    };
    const details = { source, time: formatInstant(time) };
    if (before === null && after === null) return this.#onlySnapshots(time, snapshots);
    const error = this.#outside(formatInstant(time), '--at', text, details);
    if (!newest || before === null) return error;
    return new HoldfastError(error.code, `${error.message} It is later than the last commit in the log.`, {
      next: `Restore the newest moment with --at ${text.before} or without any target; or, while \`holdfast capture ${source}\` runs, wait some seconds and try again: its heartbeat moves the window's end.`,
      details: error.details,
    });
  }

  #onlySnapshots(time: bigint, snapshots: readonly SnapshotHeader[]): HoldfastError {
    const { source } = this.#request;
    const newest = [...snapshots].sort((a, b) => a.sourceFinished - b.sourceFinished).at(-1)!;
    return new HoldfastError(
      'recovery.outside-window',
      `${formatInstant(time)} lies in no recovery window of ${source}: there is no log after its snapshots, so only the snapshots themselves can be restored.`,
      {
        next: `Restore one with --snapshot ${newest.id} (${formatInstant(BigInt(newest.sourceFinished) * 1000n)}); for moments in between run: holdfast capture ${source}`,
        details: { source, time: formatInstant(time), before: null, after: null },
      },
    );
  }

  #outside(
    what: string,
    option: string,
    edges: { readonly before: string | null; readonly after: string | null },
    details: Readonly<Record<string, string>>,
  ): HoldfastError {
    const { source } = this.#request;
    const nearest = [
      edges.before === null ? 'there is none before it' : `the nearest before it is ${edges.before}`,
      edges.after === null ? 'there is none after it' : `the nearest after it is ${edges.after}`,
    ];
    const choices = [edges.before, edges.after]
      .filter((edge) => edge !== null)
      .map((edge) => `${option} ${edge}`);
    return new HoldfastError(
      'recovery.outside-window',
      `${what[0]!.toUpperCase()}${what.slice(1)} lies in no recovery window of ${source}: ${nearest.join(', ')}.`,
      {
        next: `Restore ${choices.join(' or ')}; \`holdfast list ${source}\` shows all windows.`,
        details: { ...details, before: edges.before, after: edges.after },
      },
    );
  }
}
