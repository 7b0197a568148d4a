/** What `list` prints: for people and as JSON. */

import { formatBytes } from '../core/figures.ts';
import { formatInstant } from '../core/time.ts';
import type { ListedSource, Listing } from '../operations/list.ts';
import { snapshotJson } from './snapshot-json.ts';
import { age, count, indented, moment, table } from './text.ts';

export function listingJson(listing: Listing): unknown {
  return {
    repository: listing.repository,
    address: listing.address,
    sources: listing.sources.map(sourceJson),
    problems: listing.problems,
    // Only somebody outside can know that something newer once was here.
    newestIsWitnessed: false,
  };
}

function sourceJson(source: ListedSource): unknown {
  const { formatPosition, ranges, newestLogAt } = source;
  const span = (range: { fromPosition: string; toPosition: string }) => ({
    fromPosition: formatPosition(range.fromPosition),
    toPosition: formatPosition(range.toPosition),
  });
  const times = (range: { fromTime: bigint | null; toTime: bigint | null }) => ({
    from: range.fromTime === null ? null : formatInstant(range.fromTime),
    to: range.toTime === null ? null : formatInstant(range.toTime),
  });
  return {
    source: source.source,
    kind: source.kind,
    snapshots: source.snapshots.map((header) => snapshotJson(header, formatPosition)),
    windows: ranges.windows.map((window) => ({ ...window, ...times(window), ...span(window), ...noTimes })),
    gaps: ranges.gaps.map((gap) => ({ lineage: gap.lineage, ...times(gap), ...span(gap) })),
    logWithoutSnapshot: ranges.orphans.map((orphan) => ({ lineage: orphan.lineage, ...span(orphan) })),
    logParts: source.logParts,
    storedBytes: source.storedBytes,
    newestLogAt: newestLogAt === null ? null : new Date(newestLogAt).toISOString(),
  };
}

const noTimes = { fromTime: undefined, toTime: undefined };

/** `newest`: how many snapshots of each source; 0 for all. */
export function listingText(listing: Listing, newest: number): string {
  const lines = [`Repository ${listing.repository} at ${listing.address}`, ''];
  if (listing.sources.length === 0) lines.push('It holds nothing yet. Take a snapshot: holdfast backup', '');
  for (const source of listing.sources) lines.push(sourceText(source, newest, listing.now), '');
  for (const { name, message } of listing.problems) lines.push(`DAMAGED ${name}: ${message}`);
  lines.push(
    'Whether something newer was here once, the repository alone cannot tell: nobody outside witnesses it.',
  );
  return lines.join('\n');
}

function sourceText(source: ListedSource, newest: number, now: number): string {
  const { snapshots, ranges, formatPosition } = source;
  const lines = [`${source.source} (${source.kind}), ${formatBytes(source.storedBytes)} stored`];
  const shown = newest === 0 ? snapshots : snapshots.slice(-newest);
  const rows = shown.map((header) => [
    header.id,
    moment(header.sourceFinished),
    age(header.sourceFinished, now),
    formatBytes(header.bytes),
    `${formatBytes(header.storedBytes)} stored`,
  ]);
  lines.push(
    `  ${count(snapshots.length, 'snapshot')}${shown.length < snapshots.length ? `, the newest ${shown.length}` : ''}`,
  );
  if (rows.length > 0) lines.push(indented(indented(table(rows, [2, 3, 4]))));
  lines.push('  Recovery windows (any moment from … to)');
  const timed = ranges.windows.filter((window) => window.toTime !== null);
  const windows = timed.map((window) => windowRow(window, formatPosition));
  if (windows.length > 0) lines.push(indented(indented(table(windows))));
  else if (snapshots.length > 0)
    lines.push(`    none yet, only the snapshots themselves: start \`holdfast capture ${source.source}\``);
  else lines.push(`    none yet: take a snapshot with \`holdfast backup ${source.source}\``);
  const bare = ranges.windows.length - timed.length;
  if (bare > 0 && source.logParts > 0)
    lines.push(
      `  ${count(bare, 'stretch', 'stretches')} without times: only --snapshot, --lsn or the newest moment`,
    );
  for (const gap of ranges.gaps) {
    const edges = [gap.fromTime, gap.toTime].map((time) => (time === null ? '?' : formatInstant(time)));
    lines.push(
      `  GAP from ${edges[0]} to ${edges[1]} (${formatPosition(gap.fromPosition)} to ${formatPosition(gap.toPosition)}): no moment in it can be restored`,
    );
  }
  for (const orphan of ranges.orphans) {
    lines.push(
      `  Log from ${formatPosition(orphan.fromPosition)} to ${formatPosition(orphan.toPosition)} waits for a snapshot: holdfast backup ${source.source}`,
    );
  }
  if (source.newestLogAt !== null) lines.push(`  Log last added ${age(source.newestLogAt, now)}`);
  return lines.join('\n');
}

function windowRow(
  window: ListedSource['ranges']['windows'][number],
  format: (position: string) => string,
): string[] {
  const timeline = `timeline ${window.lineage.slice(window.lineage.lastIndexOf('/') + 1)}`;
  const positions = `${format(window.fromPosition)} to ${format(window.toPosition)}`;
  const [from, to] = [window.fromTime, window.toTime].map((time) =>
    time === null ? '' : formatInstant(time),
  );
  return [from ?? '', `to ${to}`, positions, timeline];
}
