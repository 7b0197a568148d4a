/**
 * Fills one pack after the other inside a worker, out of a few lent buffers. Two ways in: whole frames, and
 * blocks that are gathered into frames (for readers that find what has changed themselves).
 */
import { PACK_BYTES, type PackBinding, PackWriter, type SealContext } from './pack.ts';
import { FRAME_BYTES } from './section.ts';

/** Where bytes went. `pack` is this run's token of the pack: unique over all its workers. */
export interface Place {
  readonly pack: number;
  readonly frame: number;
  readonly offset: number;
}

export interface FilledPack {
  readonly token: number;
  readonly binding: PackBinding;
  readonly buffer: Uint8Array;
}

export interface PackFillerOptions {
  readonly context: SealContext;
  readonly level: number;
  /** Pack buffers that exist at most: one is filled while the others are being stored. */
  readonly buffers: number;
  /** Tokens are `first`, `first + step`, … so that workers never give the same. */
  readonly first: number;
  readonly step: number;
  readonly onFilled: (pack: FilledPack) => void;
}

export class PackFiller {
  readonly #options: PackFillerOptions;
  readonly #free: Uint8Array[] = [];
  #allocated = 0;
  #packs = 0;
  #open: { readonly token: number; readonly buffer: Uint8Array; readonly writer: PackWriter } | undefined;
  #gathered: Uint8Array | undefined;
  #used = 0;

  constructor(options: PackFillerOptions) {
    this.#options = options;
  }

  /** A stored pack's buffer comes back. */
  giveBack(buffer: Uint8Array): void {
    this.#free.push(buffer);
  }

  /** Whether `bytes` of plaintext can be taken for sure, whatever they compress to. */
  hasRoomFor(bytes: number): boolean {
    if (this.#free.length > 0 || this.#allocated < this.#options.buffers) return bytes <= PACK_BYTES >> 1;
    return this.#open?.writer.hasRoomFor(bytes + this.#used) ?? false;
  }

  #pack() {
    if (this.#open !== undefined) return this.#open;
    const buffer = this.#free.pop() ?? this.#allocate();
    const { context, level, first, step } = this.#options;
    const token = first + step * this.#packs++;
    this.#open = { token, buffer, writer: new PackWriter(context, level, buffer) };
    return this.#open;
  }

  #allocate(): Uint8Array {
    if (this.#allocated === this.#options.buffers) throw new Error('no pack buffer is free');
    this.#allocated++;
    return new Uint8Array(PACK_BYTES);
  }

  /** Seals one whole frame. */
  frame(plain: Uint8Array): Place {
    this.#seal();
    const { token, writer } = this.#pack();
    const frame = writer.frame(plain);
    this.#closeWhenFull();
    return { pack: token, frame, offset: 0 };
  }

  /** Bytes that the frame being gathered still takes. */
  get room(): number {
    return FRAME_BYTES - this.#used;
  }

  /** Adds blocks (at most FRAME_BYTES) to the frame that is being gathered; what is added at once is never split. */
  append(block: Uint8Array): Place {
    // A whole frame needs no gathering: it is compressed from where it lies.
    if (this.#used === 0 && block.length === FRAME_BYTES) return this.frame(block);
    if (this.#used + block.length > FRAME_BYTES) this.#seal();
    const { token, writer } = this.#pack();
    this.#gathered ??= new Uint8Array(FRAME_BYTES);
    this.#gathered.set(block, this.#used);
    const place = { pack: token, frame: writer.frames, offset: this.#used };
    this.#used += block.length;
    return place;
  }

  #seal(): void {
    if (this.#gathered === undefined || this.#used === 0) return;
    this.#pack().writer.frame(this.#gathered.subarray(0, this.#used));
    this.#used = 0;
    this.#closeWhenFull();
  }

  #closeWhenFull(): void {
    if (this.#open !== undefined && !this.#open.writer.hasRoomFor(FRAME_BYTES)) this.#close();
  }

  #close(): void {
    if (this.#open === undefined) return;
    const { token, buffer, writer } = this.#open;
    this.#open = undefined;
    this.#options.onFilled({ token, binding: writer.finish(), buffer });
  }

  /** Closes the open pack, whatever is in it. */
  finish(): void {
    this.#seal();
    this.#close();
  }
}
