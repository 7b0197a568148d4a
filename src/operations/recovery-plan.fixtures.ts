/** Builds headers for planning tests: positions are small numbers, times are seconds after a fixed start. */
import type { Ancestor, Commit, LogPartHeader, Mark, SnapshotHeader } from '../repository/contract.ts';

/** Seconds since 1970 of second 0 in tests. */
export const start = 1_795_000_000;

export function position(value: number): string {
  return value.toString(16).toUpperCase().padStart(16, '0');
}

/** Microseconds of a test's second. */
export function micros(second: number): bigint {
  return BigInt(Math.round(second * 1e6)) + BigInt(start) * 1_000_000n;
}

export function commit(at: number, second: number): Commit {
  return { position: BigInt(at), time: micros(second), id: BigInt(at) };
}

export function mark(name: string, at: number, second: number): Mark {
  return { name, position: BigInt(at), time: micros(second) };
}

export interface Place {
  readonly lineage?: string;
  readonly ancestors?: readonly Ancestor[];
  readonly storedAt?: number;
  /** When the part's stream was opened, in the test's seconds. Default 0: all parts are of one stream. */
  readonly opened?: number;
  readonly marks?: readonly Mark[];
}

export function snapshot(
  id: string,
  from: number,
  to: number,
  seconds: readonly [number, number],
  place: Place = {},
): SnapshotHeader {
  const times = { started: (start + seconds[0]) * 1000, finished: (start + seconds[1]) * 1000 };
  return {
    id,
    digest: id,
    name: `snapshots/app/${id}`,
    source: 'app',
    kind: 'postgres',
    writer: 'w',
    sequence: 1,
    previous: null,
    lineage: place.lineage ?? 'sys/1',
    ancestors: place.ancestors ?? [],
    from: position(from),
    to: position(to),
    ...times,
    sourceStarted: Math.floor((start + seconds[0]) * 1000),
    sourceFinished: Math.floor((start + seconds[1]) * 1000),
    bytes: 1000,
    storedBytes: 100,
    files: 10,
    storedAt: place.storedAt ?? (start + seconds[1]) * 1000,
  };
}

export interface BuiltPart {
  readonly header: LogPartHeader;
  readonly commits: readonly Commit[];
  readonly marks: readonly Mark[];
}

export function part(from: number, to: number, commits: readonly Commit[], place: Place = {}): BuiltPart {
  const marks = (place.marks ?? []).filter(
    (one) => one.position >= BigInt(from) && one.position < BigInt(to),
  );
  const inside = commits.filter((one) => one.position >= BigInt(from) && one.position < BigInt(to));
  const times = inside.map((one) => one.time);
  const sorted = [...times].sort((a, b) => (a < b ? -1 : 1));
  const lineage = place.lineage ?? 'sys/1';
  const header: LogPartHeader = {
    name: `logs/app/${lineage}/${place.opened ?? 0}/${from}-${to}`,
    digest: `${lineage}/${place.opened ?? 0}/${from}-${to}`,
    source: 'app',
    kind: 'postgres',
    writer: 'w',
    stream: streamOf(place.opened ?? 0),
    sequence: from,
    previous: null,
    replaces: null,
    lineage,
    ancestors: place.ancestors ?? [],
    from: position(from),
    to: position(to),
    times:
      times.length === 0
        ? null
        : { first: `${times[0]}`, last: `${times.at(-1)}`, min: `${sorted[0]}`, max: `${sorted.at(-1)}` },
    ...(marks.length === 0 ? {} : { marks: marks.length }),
    bytes: to - from,
    storedBytes: to - from,
    closed: sorted.length === 0 ? start * 1000 : Number(sorted.at(-1)! / 1000n),
    storedAt: place.storedAt ?? Number((times.at(-1) ?? micros(0)) / 1000n),
  };
  return { header, commits: inside, marks };
}

function streamOf(second: number): string {
  const moment = new Date((start + second) * 1000).toISOString().replaceAll(/[-:]|\.\d+/g, '');
  return `${moment}-${second}`;
}
