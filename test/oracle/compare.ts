/** Compares a server, row by row, with the transactions that must be in it. */
import pg from 'pg';
import { binOf, type Entry, type State, stateAfter } from './journal.ts';
import { journal } from './truth.ts';

export interface Comparison {
  /** Rows that were compared. */
  readonly rows: number;
  /** What differs, in words; empty when nothing does. */
  readonly differences: readonly string[];
}

/** `expected`: in the order of their commits. */
export async function compareWith(url: string, expected: readonly Entry[]): Promise<Comparison> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    // They are not committed, and what they locked could not be read.
    const prepared = await client.query<{ gid: string }>('SELECT gid FROM pg_prepared_xacts');
    for (const { gid } of prepared.rows) await client.query(`ROLLBACK PREPARED '${gid}'`);
    const found = await journal(client);
    const differences: string[] = [];
    const ids = new Map([...found.values()].map((entry) => [entry.id, entry]));
    const wanted = new Map(expected.map((entry) => [entry.id, entry]));
    report(
      differences,
      'transactions missing',
      [...wanted.keys()].filter((id) => !ids.has(id)),
    );
    report(
      differences,
      'transactions too many',
      [...ids.keys()].filter((id) => !wanted.has(id)),
    );
    const changed = [...wanted].filter(([id, entry]) => ids.has(id) && !same(entry, ids.get(id)!));
    report(
      differences,
      'journal rows that differ',
      changed.map(([id]) => id),
    );
    const rows = await tables(client, stateAfter(expected), differences);
    return { rows: rows + found.size, differences };
  } finally {
    await client.end();
  }
}

function same(one: Entry, other: Entry): boolean {
  return (Object.keys(one) as (keyof Entry)[]).every((key) => one[key] === other[key]);
}

function report(differences: string[], what: string, ids: readonly (number | string)[]): void {
  if (ids.length > 0)
    differences.push(`${what}: ${ids.length} (${ids.slice(0, 8).join(', ')}${ids.length > 8 ? ', …' : ''})`);
}

async function tables(client: pg.Client, state: State, differences: string[]): Promise<number> {
  const query = async <T extends pg.QueryResultRow>(sql: string) => (await client.query<T>(sql)).rows;
  const accounts = await query<{ id: number; balance: string }>(
    'SELECT id, balance FROM accounts ORDER BY id',
  );
  const wrong = state.balances.filter((balance, id) => Number(accounts[id]?.balance) !== balance);
  if (wrong.length > 0 || accounts.length !== state.balances.length)
    differences.push(`${wrong.length} of ${accounts.length} balances differ`);
  const sum = accounts.reduce((total, { balance }) => total + Number(balance), 0);
  if (sum !== 0) differences.push(`the balances sum to ${sum}`);
  const notes = await query<{ id: string; body: string }>('SELECT id, body FROM notes');
  const there = new Map(notes.map(({ id, body }) => [Number(id), body]));
  report(
    differences,
    'notes missing or different',
    [...state.notes].filter(([id, body]) => there.get(id) !== body).map(([id]) => id),
  );
  report(
    differences,
    'notes too many',
    [...there.keys()].filter((id) => !state.notes.has(id)),
  );
  let rows = accounts.length + notes.length;
  const names = await query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relname ~ '^(bin|side)_'`,
  );
  const tableNames = new Set(names.map(({ name }) => name));
  for (const [client, bin] of state.bins) {
    const name = binOf(client);
    if (!tableNames.has(name)) {
      differences.push(`the table ${name} is missing`);
      continue;
    }
    const held = await query<{ id: string; count: string }>(
      `SELECT id, count(DISTINCT n) FROM ${name} GROUP BY id`,
    );
    const counts = new Map(held.map(({ id, count }) => [Number(id), Number(count)]));
    report(
      differences,
      `rows of ${name} missing`,
      [...bin].filter(([id, count]) => counts.get(id) !== count).map(([id]) => id),
    );
    report(
      differences,
      `rows of ${name} too many`,
      [...counts.keys()].filter((id) => !bin.has(id)),
    );
    rows += [...counts.values()].reduce((total, count) => total + count, 0);
  }
  const sides = [...tableNames].filter((name) => name.startsWith('side_'));
  report(
    differences,
    'tables too many',
    sides.filter((name) => !state.sides.has(name)),
  );
  for (const [name, count] of state.sides) {
    if (!tableNames.has(name)) differences.push(`the table ${name} is missing`);
    else {
      const [held] = await query<{ count: string }>(`SELECT count(*) FROM ${name}`);
      if (Number(held!.count) !== count)
        differences.push(`${name} has ${held!.count} rows instead of ${count}`);
      rows += count;
    }
  }
  return rows;
}
