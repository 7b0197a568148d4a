/** Several clients that write at once, until they are told to end. */
import pg from 'pg';
import { accountCount, binOf, type Entry, type Kind, stateAfter, statementsOf } from './journal.ts';
import { Random } from './random.ts';

export interface LoadOptions {
  readonly url: string;
  readonly seed: number;
  readonly clients: number;
  /** Ids given are above this; so a load on another history has ids of its own. */
  readonly firstId: number;
  /** Longest pause between two transactions of a client, ms. */
  readonly pauseMs: number;
}

type Ending = 'commit' | 'lazy' | 'savepoint' | 'rollback' | 'prepared' | 'rollback-prepared';

const endings: Readonly<Record<Ending, number>> = {
  commit: 60,
  lazy: 8,
  savepoint: 10,
  rollback: 8,
  prepared: 9,
  'rollback-prepared': 5,
};
const kinds: Readonly<Record<Kind, number>> = {
  transfer: 50,
  note: 18,
  erase: 8,
  fill: 10,
  truncate: 4,
  create: 6,
  drop: 4,
};

/**
 * A running load. A client that loses its connection tries again until the load is stopped; what it had sent
 * may or may not be committed, and only the log can tell.
 */
export class Load {
  readonly #options: LoadOptions;
  readonly #stopping = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  #nextId: number;
  /** Transactions whose commit the server confirmed and waited to be durable for. */
  readonly confirmed = new Set<number>();
  /** Transactions that were rolled back: never to be seen. */
  readonly rolledBack = new Set<number>();
  #unexpected: unknown;

  private constructor(options: LoadOptions) {
    this.#options = options;
    this.#nextId = options.firstId;
  }

  /** The tables of `schema` are there already. */
  static async start(options: LoadOptions): Promise<Load> {
    const load = new Load(options);
    const random = new Random(options.seed);
    const clients = Array.from({ length: options.clients }, (_, client) => client + options.firstId);
    const setup = new pg.Client({ connectionString: options.url });
    await setup.connect();
    for (const client of clients)
      await setup.query(`CREATE TABLE IF NOT EXISTS ${binOf(client)} (id bigint NOT NULL, n int NOT NULL)`);
    await setup.end();
    load.#running = Promise.all(clients.map((client) => load.#client(client, random.fork())));
    return load;
  }

  /** How many transactions were begun. */
  get begun(): number {
    return this.#nextId - this.#options.firstId;
  }

  /** Waits until the server confirms another transaction: the load goes on after an outage. */
  async confirms(deadlineMs = 60_000): Promise<void> {
    const before = this.confirmed.size;
    const until = performance.now() + deadlineMs;
    while (this.confirmed.size === before) {
      if (this.#unexpected !== undefined) throw this.#unexpected;
      if (performance.now() > until) throw new Error('the load does not go on');
      await pause(50);
    }
  }

  /** Ends after the transactions under way. Throws what went wrong for another reason than a lost server. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    if (this.#unexpected !== undefined) throw this.#unexpected;
  }

  async #client(client: number, random: Random): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const connection = new pg.Client({ connectionString: this.#options.url, statement_timeout: 20_000 });
      connection.on('error', () => undefined);
      try {
        await connection.connect();
        const notices = await this.#known(connection, client);
        while (!this.#stopping.signal.aborted) {
          await this.#transaction(connection, client, random, notices);
          await pause(random.next() * this.#options.pauseMs);
        }
      } catch (error) {
        if (!isLostServer(error)) {
          this.#unexpected ??= error;
          return;
        }
        await pause(100);
      } finally {
        // `end` of a connection that never stood may wait for ever.
        await Promise.race([connection.end().catch(() => undefined), pause(500)]);
      }
    }
  }

  /** What this client has already in the database: after a crash only the database knows. */
  async #known(connection: pg.Client, client: number): Promise<{ notes: number[]; sides: number[] }> {
    // Prepared transactions of a lost connection hold locks for ever.
    const prepared = await connection.query<{ gid: string }>(
      `SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'load-${client}-%'`,
    );
    for (const { gid } of prepared.rows) await connection.query(`ROLLBACK PREPARED '${gid}'`);
    const { rows } = await connection.query<{ id: string; kind: Kind; a: string }>(
      `SELECT id, kind, a FROM journal WHERE client = ${client} ORDER BY id`,
    );
    const mine = rows.map(({ id, kind, a }) => ({
      ...{ id: Number(id), client, kind, a: Number(a), b: 0, amount: 0, filler: '' },
    }));
    const own = mine.filter(({ kind }) => kind !== 'transfer');
    const { notes, sides } = stateAfter(own);
    return {
      notes: [...notes.keys()],
      sides: [...sides.keys()].map((name) => Number(name.slice('side_'.length))),
    };
  }

  async #transaction(
    connection: pg.Client,
    client: number,
    random: Random,
    mine: { notes: number[]; sides: number[] },
  ): Promise<void> {
    this.#nextId += 1;
    const entry = this.#entry(this.#nextId, client, random, mine);
    const ending = random.weighted(endings);
    const { id } = entry;
    const run = async (sql: string) => await connection.query(sql);
    await run('BEGIN');
    if (ending === 'lazy') await run('SET LOCAL synchronous_commit = off');
    if (ending === 'savepoint') {
      await run('SAVEPOINT wrong');
      await run(`UPDATE accounts SET balance = balance + 1000000 WHERE id = ${random.below(accountCount)}`);
      await run(`INSERT INTO notes VALUES (${-id}, ${client}, 'undone')`);
      await run('ROLLBACK TO wrong');
      // Its rows belong to a subtransaction that is kept.
      await run('SAVEPOINT kept');
    }
    for (const statement of statementsOf(entry)) await run(statement);
    if (ending === 'savepoint') await run('RELEASE kept');
    const undone = ending === 'rollback' || ending === 'rollback-prepared';
    if (undone) this.rolledBack.add(id);
    if (ending.endsWith('prepared')) {
      const gid = `load-${client}-${id}`;
      await run(`PREPARE TRANSACTION '${gid}'`);
      await pause(random.next() * this.#options.pauseMs * 2);
      await run(`${undone ? 'ROLLBACK' : 'COMMIT'} PREPARED '${gid}'`);
    } else await run(undone ? 'ROLLBACK' : 'COMMIT');
    if (undone) return;
    if (ending !== 'lazy') this.confirmed.add(id);
    if (entry.kind === 'note') mine.notes.push(id);
    if (entry.kind === 'erase') mine.notes.splice(mine.notes.indexOf(entry.a), 1);
    if (entry.kind === 'create') mine.sides.push(id);
    if (entry.kind === 'drop') mine.sides.splice(mine.sides.indexOf(entry.a), 1);
  }

  #entry(id: number, client: number, random: Random, mine: { notes: number[]; sides: number[] }): Entry {
    let kind = random.weighted(kinds);
    if (kind === 'erase' && mine.notes.length === 0) kind = 'note';
    if (kind === 'drop' && mine.sides.length === 0) kind = 'create';
    const filler = Array.from({ length: random.between(1, 12) }, () =>
      random.below(2 ** 32).toString(36),
    ).join('');
    const entry = { id, client, kind, a: 0, b: 0, amount: 0, filler };
    if (kind === 'transfer') {
      const a = random.below(accountCount);
      const b = (a + random.between(1, accountCount - 1)) % accountCount;
      return { ...entry, a, b, amount: random.between(1, 1000) };
    }
    if (kind === 'erase') return { ...entry, a: random.pick(mine.notes) };
    if (kind === 'drop') return { ...entry, a: random.pick(mine.sides) };
    return { ...entry, amount: random.between(1, 60) };
  }
}

/** The server is gone, is going, is starting or is recovering. */
function isLostServer(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  if (typeof code === 'string') return /^(57|08|E[A-Z]+$)/.test(code);
  return /terminated|closed|ended|timeout|not queryable/i.test(error.message);
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
