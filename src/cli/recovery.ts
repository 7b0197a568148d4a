/** What `restore` prints: the plan before anything happens, and what came of it. */

import { formatBytes } from '../core/figures.ts';
import { formatInstant } from '../core/time.ts';
import type { PreparedRestore, Replaced, Restored } from '../operations/restore.ts';
import { snapshotJson } from './snapshot-json.ts';
import { count, iso, table } from './text.ts';

type Commit = NonNullable<PreparedRestore['plan']['lastCommit']>;

export function planJson({ plan, kind, to, start, place, formatPosition }: PreparedRestore): unknown {
  const written = (position: string | null) => (position === null ? null : formatPosition(position));
  const commit = (one: Commit | null) =>
    one === null
      ? null
      : { position: formatPosition(asPosition(one)), time: formatInstant(one.time), id: String(one.id) };
  const { target } = plan;
  return {
    source: plan.source,
    kind,
    target: {
      kind: target.kind,
      ...(target.kind === 'time' ? { time: formatInstant(target.time) } : {}),
      ...(target.kind === 'position' ? { position: formatPosition(target.position) } : {}),
      ...(target.kind === 'transaction' ? { id: String(target.id), inclusive: target.inclusive } : {}),
      ...(target.kind === 'name' ? { name: target.name } : {}),
      ...(target.kind === 'snapshot' ? { snapshot: plan.snapshot.id } : {}),
    },
    snapshot: snapshotJson(plan.snapshot, formatPosition),
    parts: plan.parts.map(({ name, from, to: end, bytes }) => ({
      name,
      from: formatPosition(from),
      to: formatPosition(end),
      bytes,
    })),
    logBytes: plan.logBytes,
    stop: { before: written(plan.stop.before), lineage: plan.stop.lineage, end: formatPosition(plan.end) },
    lastCommit: commit(plan.lastCommit),
    firstExcluded: commit(plan.firstExcluded),
    to,
    start,
    inPlace:
      place === null
        ? null
        : {
            directory: place.directory,
            running: place.running,
            stop: place.stop,
            start: place.start,
            safety: place.safety,
            kept: place.kept,
          },
    warnings: [...plan.warnings, ...(place?.warnings ?? [])],
  };
}

function asPosition(commit: Commit): string {
  return commit.position.toString(16).toUpperCase().padStart(16, '0');
}

export function planText({ plan, to, start, place, formatPosition }: PreparedRestore): string {
  const rows = [
    ['Restore', `${plan.source} to ${targetText(plan, formatPosition)}`],
    [
      'From snapshot',
      `${plan.snapshot.id}, consistent at ${iso(plan.snapshot.sourceFinished)}, ${formatBytes(plan.snapshot.bytes)}`,
    ],
    ['Then log', logText(plan, formatPosition)],
  ];
  if (plan.lastCommit !== null) rows.push(['Last commit kept', commitText(plan.lastCommit, formatPosition)]);
  if (plan.firstExcluded !== null)
    rows.push(['First left out', commitText(plan.firstExcluded, formatPosition)]);
  if (place === null) rows.push(['Into', `${to}${start ? ', and start the server there' : ''}`]);
  else rows.push(...placeRows(place, start));
  for (const warning of [...plan.warnings, ...(place?.warnings ?? [])]) rows.push(['Warning', warning]);
  return table(rows);
}

/** The steps of a restore in place, in their order. */
function placeRows(place: NonNullable<PreparedRestore['place']>, start: boolean): string[][] {
  const rows = [
    ['In place', `${place.directory}, ${place.running ? 'where the server runs' : 'where no server runs'}`],
    ['1 stop', place.stop ?? 'nothing to stop'],
    ['2 restore', `beside it, in ${place.safety}, with a server of its own that replays and is cut off`],
    ['3 exchange', `by renaming; what is there now is kept in ${place.safety}, its log included`],
    ['4 start', place.running || start ? (place.start ?? 'by hand') : 'not: the server does not run now'],
  ];
  for (const kept of place.kept) rows.push(['Kept before', `${kept}; delete it when it is needed no more`]);
  return rows;
}

function targetText(plan: PreparedRestore['plan'], format: (position: string) => string): string {
  const { target } = plan;
  switch (target.kind) {
    case 'latest':
      return 'the newest moment';
    case 'time':
      return `${formatInstant(target.time)} (UTC)`;
    case 'position':
      return `just before ${format(target.position)}`;
    case 'transaction':
      return `${target.inclusive ? 'the commit of' : 'just before'} transaction ${target.id}`;
    case 'name':
      return `the named point "${target.name}"`;
    case 'snapshot':
      return `the snapshot ${plan.snapshot.id} itself`;
  }
}

function logText(plan: PreparedRestore['plan'], format: (position: string) => string): string {
  if (plan.parts.length === 0) return 'none';
  const timeline = plan.stop.lineage.slice(plan.stop.lineage.lastIndexOf('/') + 1);
  return `${format(plan.snapshot.to)} to ${format(plan.end)}, ${formatBytes(plan.logBytes)} in ${count(plan.parts.length, 'part')}, timeline ${timeline}`;
}

function commitText(commit: Commit, format: (position: string) => string): string {
  return `${formatInstant(commit.time)} at ${format(asPosition(commit))}, transaction ${commit.id}`;
}

/** What is in place now. `undone`: by `--undo`. */
export function replacedText(
  source: string,
  replaced: Replaced,
  format: (position: string) => string,
  restored: Restored | null,
): string {
  const lines: string[] = [];
  if (restored === null)
    lines.push(`${source} is in ${replaced.directory} as it was before the restore in place.`);
  else {
    const log = restored.logBytes === 0 ? '' : ` and ${formatBytes(restored.logBytes)} of log`;
    lines.push(
      `Restored ${source} in place: ${count(restored.files, 'file')}, ${formatBytes(restored.bytes)}${log}, in ${replaced.directory}.`,
    );
  }
  if (replaced.safety !== '') lines.push(`What was there is kept in ${replaced.safety}.`);
  const { server } = replaced;
  if (server === null) lines.push('The server is stopped.');
  else {
    const timeline = server.lineage.slice(server.lineage.lastIndexOf('/') + 1);
    lines.push(
      `The server runs: ${server.connection}, at ${format(server.position)} on timeline ${timeline}.`,
    );
  }
  lines.push(...replaced.warnings.map((warning) => `warning: ${warning}`));
  lines.push('Next:', ...replaced.next.map((line) => `  ${line}`));
  return lines.join('\n');
}

export function restoredText(restored: Restored, format: (position: string) => string): string {
  const { to, files, bytes, logBytes, server, warnings, next } = restored;
  const log = logBytes === 0 ? '' : ` and ${formatBytes(logBytes)} of log`;
  const lines = [`Restored ${count(files, 'file')}, ${formatBytes(bytes)}${log}, to ${to}.`];
  if (server !== null) {
    lines.push(
      `The server runs: it replayed to ${format(server.reached)} as planned.`,
      `  connect  ${server.connection}`,
      `  stop     ${server.stop}`,
    );
  }
  lines.push(...warnings.map((warning) => `warning: ${warning}`));
  if (next.length > 0) lines.push('Next:', ...next.map((line) => `  ${line}`));
  return lines.join('\n');
}
