/** The quickstart's ledger: accounts and transfers whose sum must stay 0, with our own record beside the database. */
import type { Client } from 'pg';

const accounts = 500;
/** History that is there before the snapshot, so that it has some size. */
const openingTransfers = 40_000;

interface Transfer {
  readonly id: number;
  readonly from: number;
  readonly to: number;
  readonly cents: number;
}

export interface Comparison {
  readonly identical: boolean;
  readonly rowsCompared: number;
  /** What the restored accounts sum up to, in cents: 0 where no money was made or lost. */
  readonly sum: number;
  /** The first difference, for people. */
  readonly difference: string | null;
}

/** Keeps what it was told was committed, and nothing that it read back. */
export class Ledger {
  readonly #client: Client;
  readonly #transfers: Transfer[] = [];
  readonly #balances: number[] = Array.from({ length: accounts + 1 }, () => 0);
  /** Own generator: the same ledger on every machine. */
  #seed = 20_261_121;

  constructor(client: Client) {
    this.#client = client;
  }

  get transfers(): number {
    return this.#transfers.length;
  }

  /** Creates the tables with a past. */
  async create(): Promise<void> {
    await this.#client.query(`
      CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
      CREATE TABLE transfers (id integer PRIMARY KEY, debit integer NOT NULL REFERENCES accounts,
        credit integer NOT NULL REFERENCES accounts, cents bigint NOT NULL, memo text NOT NULL);
      INSERT INTO accounts SELECT n, 0 FROM generate_series(1, ${accounts}) n;`);
    const opening = Array.from({ length: openingTransfers }, () => this.#next());
    const column = (pick: (transfer: Transfer) => number) => opening.map(pick);
    await this.#client.query('BEGIN');
    await this.#client.query(
      `INSERT INTO transfers SELECT id, debit, credit, cents, 'transfer ' || id
         FROM unnest($1::int[], $2::int[], $3::int[], $4::bigint[]) AS t (id, debit, credit, cents)`,
      [column((t) => t.id), column((t) => t.from), column((t) => t.to), column((t) => t.cents)],
    );
    for (const transfer of opening) this.#record(transfer);
    await this.#client.query(
      'UPDATE accounts SET balance = t.balance FROM unnest($1::int[], $2::bigint[]) AS t (id, balance) WHERE accounts.id = t.id',
      [this.#balances.map((_, id) => id).slice(1), this.#balances.slice(1)],
    );
    await this.#client.query('COMMIT');
  }

  /** One transfer after the other, each a transaction of its own, until `until` says so. */
  async transferUntil(until: () => boolean): Promise<void> {
    while (!until()) {
      const transfer = this.#next();
      const { id, from, to, cents } = transfer;
      await this.#client.query(
        `BEGIN;
         UPDATE accounts SET balance = balance - ${cents} WHERE id = ${from};
         UPDATE accounts SET balance = balance + ${cents} WHERE id = ${to};
         INSERT INTO transfers VALUES (${id}, ${from}, ${to}, ${cents}, 'transfer ' || ${id});
         COMMIT`,
      );
      this.#record(transfer);
    }
  }

  /** Compares every row of a database with our record. */
  async compare(restored: Client): Promise<Comparison> {
    const found = await restored.query<{
      id: number;
      debit: number;
      credit: number;
      cents: string;
      memo: string;
    }>('SELECT id, debit, credit, cents, memo FROM transfers ORDER BY id');
    const balances = await restored.query<{ id: number; balance: string }>(
      'SELECT id, balance FROM accounts ORDER BY id',
    );
    const sum = await restored.query<{ sum: string }>('SELECT sum(balance) FROM accounts');
    const is = [
      ...found.rows.map(
        (row) => `transfer ${row.id}: ${row.debit} to ${row.credit}, ${row.cents}, ${row.memo}`,
      ),
      ...balances.rows.map((row) => `account ${row.id}: ${row.balance}`),
    ];
    const should = [
      ...this.#transfers.map((t) => `transfer ${t.id}: ${t.from} to ${t.to}, ${t.cents}, transfer ${t.id}`),
      ...this.#balances.slice(1).map((balance, index) => `account ${index + 1}: ${balance}`),
    ];
    const at = Array.from({ length: Math.max(is.length, should.length) }, (_, index) => index).find(
      (index) => is[index] !== should[index],
    );
    const total = Number(sum.rows[0]?.sum);
    const difference =
      at === undefined ? null : `expected "${should[at] ?? 'nothing'}", found "${is[at] ?? 'nothing'}"`;
    return {
      identical: at === undefined && total === 0,
      rowsCompared: should.length,
      sum: total,
      difference,
    };
  }

  #next(): Transfer {
    const from = 1 + this.#random(accounts);
    const to = 1 + ((from + this.#random(accounts - 1)) % accounts);
    this.#issued += 1;
    return { id: this.#issued, from, to, cents: 1 + this.#random(100_000) };
  }

  #issued = 0;

  #record(transfer: Transfer): void {
    this.#transfers.push(transfer);
    this.#balances[transfer.from]! -= transfer.cents;
    this.#balances[transfer.to]! += transfer.cents;
  }

  #random(below: number): number {
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return Math.floor((this.#seed / 0x80000000) * below);
  }
}
