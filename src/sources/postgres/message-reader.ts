/** Cuts the server's byte stream into messages, in place: bytes are copied only where a message is split. */
import { protocolError, serverMessage } from './messages.ts';

/** A returned promise stops the reading until it resolves; views are valid until then. */
export interface MessageHandler {
  /** A whole message. `body` is a view. */
  message(type: number, body: Buffer): void | Promise<void>;
  /**
   * A piece of a CopyData message, which is never put together. `first` and `last` tell its place in the message;
   * a piece is empty only when the message is.
   */
  copy(piece: Buffer, first: boolean, last: boolean): void | Promise<void>;
}

const empty = Buffer.alloc(0);
/** Where a split message begins to grow: what it announces may be a lie, what has arrived is not. */
const firstGrowth = 64 * 1024;

export class MessageReader {
  /** Longest message taken (CopyData excepted, which is never kept). */
  limit: number;

  readonly #handler: MessageHandler;
  #chunk: Buffer = empty;
  #offset = 0;
  readonly #head = Buffer.alloc(5);
  #headFill = 0;
  #body: Buffer = empty;
  #bodyFill = 0;
  /** Of the split message, -1 where there is none. */
  #bodyLength = -1;
  #copyLeft = 0;
  #copyFirst = false;

  constructor(handler: MessageHandler, limit: number) {
    this.#handler = handler;
    this.limit = limit;
  }

  /**
   * Takes the next bytes. Undefined when all were handled; else a promise, and the chunk must stay as it is until
   * it resolves. Throws and rejects with what the handler does, or `postgres.protocol`; it is not usable then.
   */
  read(chunk: Buffer): Promise<void> | undefined {
    this.#chunk = chunk;
    this.#offset = 0;
    const wait = this.#consume();
    return wait === undefined ? undefined : this.#goOn(wait);
  }

  async #goOn(first: Promise<void>): Promise<void> {
    for (let wait: Promise<void> | undefined = first; wait !== undefined; wait = this.#consume()) await wait;
  }

  #consume(): Promise<void> | undefined {
    while (this.#offset < this.#chunk.length) {
      const wait =
        this.#copyLeft > 0 ? this.#takeCopy() : this.#bodyLength >= 0 ? this.#takeBody() : this.#takeHead();
      if (wait instanceof Promise) return wait;
    }
    this.#chunk = empty;
    return undefined;
  }

  #takeCopy(): void | Promise<void> {
    const start = this.#offset;
    const size = Math.min(this.#copyLeft, this.#chunk.length - start);
    const first = this.#copyFirst;
    this.#offset = start + size;
    this.#copyLeft -= size;
    this.#copyFirst = false;
    return this.#handler.copy(this.#chunk.subarray(start, start + size), first, this.#copyLeft === 0);
  }

  #takeHead(): void | Promise<void> {
    const chunk = this.#chunk;
    const start = this.#offset;
    if (this.#headFill === 0 && chunk.length - start >= 5) {
      this.#offset = start + 5;
      return this.#begin(chunk[start]!, chunk.readInt32BE(start + 1) - 4);
    }
    const copied = chunk.copy(this.#head, this.#headFill, start, start + 5 - this.#headFill);
    this.#offset = start + copied;
    this.#headFill += copied;
    if (this.#headFill < 5) return;
    this.#headFill = 0;
    return this.#begin(this.#head[0]!, this.#head.readInt32BE(1) - 4);
  }

  #begin(type: number, length: number): void | Promise<void> {
    if (length < 0) throw protocolError('a message has a negative length');
    if (type === serverMessage.copyData) {
      if (length === 0) return this.#handler.copy(empty, true, true);
      this.#copyLeft = length;
      this.#copyFirst = true;
      return;
    }
    if (length > this.limit) {
      throw protocolError(
        `a message of ${length} bytes was announced, ${this.limit} are the most expected here`,
      );
    }
    const start = this.#offset;
    if (this.#chunk.length - start >= length) {
      this.#offset = start + length;
      return this.#handler.message(type, this.#chunk.subarray(start, start + length));
    }
    this.#head[0] = type;
    this.#bodyLength = length;
    this.#bodyFill = 0;
    this.#body = Buffer.allocUnsafe(Math.min(length, firstGrowth));
  }

  #takeBody(): void | Promise<void> {
    const size = Math.min(this.#bodyLength - this.#bodyFill, this.#chunk.length - this.#offset);
    const needed = this.#bodyFill + size;
    if (needed > this.#body.length) {
      const grown = Buffer.allocUnsafe(Math.min(this.#bodyLength, Math.max(needed, this.#body.length * 2)));
      this.#body.copy(grown, 0, 0, this.#bodyFill);
      this.#body = grown;
    }
    this.#chunk.copy(this.#body, this.#bodyFill, this.#offset, this.#offset + size);
    this.#offset += size;
    this.#bodyFill = needed;
    if (needed < this.#bodyLength) return;
    const body = this.#body.subarray(0, this.#bodyLength);
    this.#body = empty;
    this.#bodyLength = -1;
    return this.#handler.message(this.#head[0]!, body);
  }
}
