/**
 * How late the log is, seen from outside: a client commits ten times a second and notes when the server had
 * answered and where the log was; a look into the repository's folder notes when an object that reaches so far
 * was there. An object has its name only after its content was flushed to disk.
 */
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Client } from 'pg';
import { percentile } from './statistics.ts';

const betweenCommitsMs = 100;
const betweenLooksMs = 20;

interface Commit {
  readonly position: bigint;
  readonly answered: number;
}

export interface LagFigures {
  readonly maxMs: number;
  readonly p95Ms: number;
  readonly commits: number;
}

export class LogLag {
  readonly #client: Client;
  readonly #folder: string;
  readonly #commits: Commit[] = [];
  readonly #lags: number[] = [];
  readonly #seen = new Set<string>();
  #durable = 0n;
  #committing = true;
  #watching = true;
  readonly #done: Promise<unknown>;

  /** `client` is ended by `end`; `folder`: where the source's log parts are. */
  constructor(client: Client, folder: string) {
    this.#client = client;
    this.#folder = folder;
    this.#done = Promise.all([this.#commit(), this.#watch()]);
    this.#done.catch(() => undefined);
  }

  /** Stops committing, waits until every commit is in, and returns the lags. */
  async end(): Promise<LagFigures> {
    this.#committing = false;
    const deadline = performance.now() + 60_000;
    while (this.#commits.length > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, betweenLooksMs));
    }
    this.#watching = false;
    await this.#done;
    await this.#client.end();
    if (this.#commits.length > 0)
      throw new Error(`${this.#commits.length} commits did not get into the log in a minute`);
    return {
      maxMs: Math.max(...this.#lags),
      p95Ms: percentile(this.#lags, 0.95),
      commits: this.#lags.length,
    };
  }

  async #commit(): Promise<void> {
    while (this.#committing) {
      await this.#client.query('UPDATE bench_probe SET n = n + 1');
      const answered = performance.now();
      // Asked after the commit: the position is its end or later, never earlier, so the lag is never flattered.
      const { rows } = await this.#client.query(
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes",
      );
      this.#commits.push({ position: BigInt(rows[0].bytes), answered });
      await new Promise((resolve) => setTimeout(resolve, betweenCommitsMs));
    }
  }

  async #watch(): Promise<void> {
    while (this.#watching) {
      for (const path of await this.#newParts()) {
        const to = endOf(path);
        if (to > this.#durable) this.#durable = to;
      }
      const now = performance.now();
      while (this.#commits[0] !== undefined && this.#commits[0].position <= this.#durable) {
        this.#lags.push(now - this.#commits.shift()!.answered);
      }
      await new Promise((resolve) => setTimeout(resolve, betweenLooksMs));
    }
  }

  async #newParts(): Promise<string[]> {
    const streams = await readdir(this.#folder).catch(() => []);
    const found: string[] = [];
    for (const stream of streams) {
      for (const name of await readdir(join(this.#folder, stream))) {
        const path = join(this.#folder, stream, name);
        if (this.#seen.has(path)) continue;
        this.#seen.add(path);
        found.push(path);
      }
    }
    return found;
  }
}

/** Names carry both ends: `<from>-<to>-<digest>` (docs/03-format.md). */
function endOf(path: string): bigint {
  const to = /^[0-9A-F]+-([0-9A-F]{16})-[0-9a-f]{64}$/.exec(basename(path))?.[1];
  if (to === undefined) throw new Error(`${path} is not named as a log part`);
  return BigInt(`0x${to}`);
}
