/** Collects the result sets of a simple query. */
import { protocolError, readColumns, readRow, serverMessage } from './messages.ts';
import type { Exchange } from './session.ts';

export interface RawResult {
  readonly columns: readonly string[];
  readonly rows: (Buffer | null)[][];
  readonly tag: string;
}

/** Holdfast asks catalogues; whoever gets more than this asked the wrong way. */
const mostBytes = 64 * 1024 * 1024;

export class ResultCollector implements Exchange {
  readonly results: RawResult[] = [];
  #columns: string[] = [];
  #rows: (Buffer | null)[][] = [];
  #bytes = 0;

  message(type: number, body: Buffer): void {
    switch (type) {
      case serverMessage.rowDescription:
        this.#columns = readColumns(body);
        this.#rows = [];
        return;
      case serverMessage.dataRow:
        // An allowance per row, so that many empty ones count too.
        this.#bytes += body.length + 64;
        if (this.#bytes > mostBytes) throw protocolError('an answer is larger than 64 MiB');
        this.#rows.push(readRow(Buffer.from(body)));
        return;
      case serverMessage.commandComplete:
      case serverMessage.emptyQuery:
        this.results.push({ columns: this.#columns, rows: this.#rows, tag: tagOf(body) });
        this.#columns = [];
        this.#rows = [];
        return;
      case serverMessage.readyForQuery:
        return;
    }
    throw protocolError('an unexpected message came in answer to a statement');
  }
}

function tagOf(body: Buffer): string {
  return body.length === 0 ? '' : body.toString('utf8', 0, body.length - 1);
}
