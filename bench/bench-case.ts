/** What a case is made of. */
import type { Row } from './result.ts';

export interface Bench {
  /** Runs of each side, at least. */
  readonly runs: number;
  /** A folder of its own on a real disk, removed at the end. */
  readonly folder: string;
  /** Keeps a result and prints it. */
  add(row: Row): void;
  /** Says what is going on. */
  say(text: string): void;
}

/** Parts share what `setUp` makes: a server with its data, for one. */
export interface BenchCase<Fixture extends AsyncDisposable = AsyncDisposable> {
  readonly name: string;
  readonly summary: string;
  setUp(bench: Bench): Promise<Fixture>;
  readonly parts: Readonly<Record<string, (bench: Bench, fixture: Fixture) => Promise<void>>>;
  /** Versions of the peers, for the report. */
  versions(): Promise<Readonly<Record<string, string>>>;
}

/** Runs both sides `runs` times in turn, changing who begins, so that a drift of the machine hits both. */
export async function alternate<Ours, Peer>(
  runs: number,
  ours: (round: number) => Promise<Ours>,
  peer: (round: number) => Promise<Peer>,
): Promise<{ readonly ours: Ours[]; readonly peer: Peer[] }> {
  const results: { ours: Ours[]; peer: Peer[] } = { ours: [], peer: [] };
  for (let round = 0; round < runs; round++) {
    if (round % 2 === 0) results.ours.push(await ours(round));
    results.peer.push(await peer(round));
    if (round % 2 === 1) results.ours.push(await ours(round));
  }
  return results;
}
