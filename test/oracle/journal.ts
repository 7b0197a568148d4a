/**
 * What the load writes. Every transaction enters itself, with what it did, into the table `journal`: whoever
 * knows which transactions are in can say what every other table must hold.
 */

/** A transaction as the load meant it; its row in `journal`. */
export interface Entry {
  readonly id: number;
  readonly client: number;
  readonly kind: Kind;
  /** transfer: from account; erase: the note; drop: the table's number. */
  readonly a: number;
  /** transfer: to account. */
  readonly b: number;
  /** transfer: how much; fill: how many rows. */
  readonly amount: number;
  /** Text of no meaning that makes rows and pages differ. */
  readonly filler: string;
}

export type Kind = 'transfer' | 'note' | 'erase' | 'fill' | 'truncate' | 'create' | 'drop';

export const accountCount = 16;

export const schema = `
  CREATE TABLE journal (
    id bigint PRIMARY KEY, xid bigint NOT NULL, client int NOT NULL, kind text NOT NULL,
    a bigint NOT NULL, b bigint NOT NULL, amount int NOT NULL, filler text NOT NULL
  );
  CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
  INSERT INTO accounts SELECT n, 0 FROM generate_series(0, ${accountCount - 1}) AS n;
  CREATE TABLE notes (id bigint PRIMARY KEY, client int NOT NULL, body text NOT NULL);
  CREATE INDEX notes_body ON notes (body);
`;

/** The table that only this client fills and empties. */
export function binOf(client: number): string {
  return `bin_${client}`;
}

/** A table that one transaction makes and a later one drops. */
export function sideOf(id: number): string {
  return `side_${id}`;
}

/** The statements of a transaction, its entry in the journal included. Values are numbers and plain letters. */
export function statementsOf(entry: Entry): string[] {
  const { id, client, kind, a, b, amount, filler } = entry;
  const enter = `INSERT INTO journal VALUES (${id}, pg_current_xact_id()::text::bigint, ${client}, '${kind}', ${a}, ${b}, ${amount}, '${filler}')`;
  return [...effectsOf(entry), enter];
}

function effectsOf({ id, client, kind, a, b, amount, filler }: Entry): string[] {
  switch (kind) {
    case 'transfer': {
      // In order of account, so that two transfers never wait for each other.
      const changes = [
        { account: a, by: -amount },
        { account: b, by: amount },
      ].sort((one, other) => one.account - other.account);
      return changes.map(
        ({ account, by }) => `UPDATE accounts SET balance = balance + ${by} WHERE id = ${account}`,
      );
    }
    case 'note':
      return [`INSERT INTO notes VALUES (${id}, ${client}, '${filler}')`];
    case 'erase':
      return [`DELETE FROM notes WHERE id = ${a}`];
    case 'fill':
      return [`INSERT INTO ${binOf(client)} SELECT ${id}, n FROM generate_series(1, ${amount}) AS n`];
    case 'truncate':
      return [`TRUNCATE ${binOf(client)}`];
    case 'create':
      return [
        `CREATE TABLE ${sideOf(id)} AS SELECT n, '${filler}'::text AS body FROM generate_series(1, ${amount}) AS n`,
      ];
    case 'drop':
      return [`DROP TABLE ${sideOf(a)}`];
  }
}

/** Everything the tables hold after these transactions. */
export interface State {
  readonly balances: readonly number[];
  /** Note to its text. */
  readonly notes: ReadonlyMap<number, string>;
  /** Client to the transactions whose rows are in its bin, with how many. */
  readonly bins: ReadonlyMap<number, ReadonlyMap<number, number>>;
  /** Tables that exist, with how many rows. */
  readonly sides: ReadonlyMap<string, number>;
}

/** `entries`: in the order in which they were committed. */
export function stateAfter(entries: Iterable<Entry>): State {
  const balances = new Array<number>(accountCount).fill(0);
  const notes = new Map<number, string>();
  const bins = new Map<number, Map<number, number>>();
  const sides = new Map<string, number>();
  for (const { id, client, kind, a, b, amount, filler } of entries) {
    const bin = bins.get(client) ?? new Map<number, number>();
    bins.set(client, bin);
    if (kind === 'transfer') {
      balances[a]! -= amount;
      balances[b]! += amount;
    } else if (kind === 'note') notes.set(id, filler);
    else if (kind === 'erase') notes.delete(a);
    else if (kind === 'fill') bin.set(id, amount);
    else if (kind === 'truncate') bin.clear();
    else if (kind === 'create') sides.set(sideOf(id), amount);
    else sides.delete(sideOf(a));
  }
  return { balances, notes, bins, sides };
}
