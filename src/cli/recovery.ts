/** What `restore` prints: the plan before anything happens, and what came of it. */
import { formatInstant } from '../core/time.ts';
import type { PreparedRestore, Restored } from '../operations/restore.ts';
import { formatBytes } from './figures.ts';
import { snapshotJson } from './snapshot-json.ts';
import { count, iso, table } from './text.ts';

type Commit = NonNullable<PreparedRestore['plan']['lastCommit']>;

export function planJson({ plan, kind, to, start, formatPosition }: PreparedRestore): unknown {
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
    warnings: plan.warnings,
  };
}

function asPosition(commit: Commit): string {
  return commit.position.toString(16).toUpperCase().padStart(16, '0');
}

export function planText({ plan, to, start, formatPosition }: PreparedRestore): string {
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
  rows.push(['Into', `${to}${start ? ', and start the server there' : ''}`]);
  for (const warning of plan.warnings) rows.push(['Warning', warning]);
  return table(rows);
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
