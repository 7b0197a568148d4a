/**
 * PostgreSQL's page checksums (src/backend/storage/page/bufpage.c, PageIsVerified): which pages of a window do
 * not carry the sum of their content.
 *
 * A page that is being written while it is read does not either, so a bad one is read again: when it changed it
 * was being written, and when its LSN lies within the backup the log brings it whole. What remains is damage.
 */
import { readSync } from 'node:fs';
import { PAGE_BYTES, type PageKernel } from './page-kernel.ts';

/** A page whose checksum is wrong twice, with the same content. */
export interface BadPage {
  /** Number of the block in its relation, over all segments. */
  readonly block: number;
  /** Its pd_lsn. Whoever knows where the backup began and ended judges by it. */
  readonly lsn: bigint;
}

export interface Suspect {
  readonly block: number;
  readonly content: Uint8Array;
}

/** Offsets in a page's header. */
const checksumAt = 8;
const upperAt = 14;

export class PageCheck {
  readonly #kernel: PageKernel;

  constructor(kernel: PageKernel) {
    this.#kernel = kernel;
  }

  /** Looks at the first `count` pages of the window; the first is block `first` of the relation. */
  suspects(first: number, count: number): Suspect[] {
    const { window } = this.#kernel;
    this.#kernel.sums(count);
    const found: Suspect[] = [];
    for (let i = 0; i < count; i++) {
      if (this.#isSound(i, first + i)) continue;
      found.push({ block: first + i, content: window.slice(i * PAGE_BYTES, (i + 1) * PAGE_BYTES) });
    }
    return found;
  }

  #isSound(index: number, block: number): boolean {
    const { window, sumWords } = this.#kernel;
    const at = index * PAGE_BYTES;
    const stored = (window[at + checksumAt] as number) | ((window[at + checksumAt + 1] as number) << 8);
    if (((((sumWords[index] as number) ^ block) >>> 0) % 65_535) + 1 === stored) return true;
    const isNew = window[at + upperAt] === 0 && window[at + upperAt + 1] === 0;
    // A page that was added but never written has no checksum.
    return isNew && window.subarray(at, at + PAGE_BYTES).every((byte) => byte === 0);
  }

  /**
   * Reads the suspects again, through the window. Block `block` of the relation is block `block - shift` of the
   * file behind `fd`.
   */
  confirm(fd: number, suspects: readonly Suspect[], shift: number): BadPage[] {
    const again = this.#kernel.window.subarray(0, PAGE_BYTES);
    const bad: BadPage[] = [];
    for (const { block, content } of suspects) {
      const bytes = readSync(fd, again, 0, PAGE_BYTES, (block - shift) * PAGE_BYTES);
      // Cut off meanwhile, or written meanwhile: the log has it.
      if (bytes < PAGE_BYTES || Buffer.compare(again, content) !== 0) continue;
      const view = new DataView(content.buffer, content.byteOffset);
      bad.push({ block, lsn: (BigInt(view.getUint32(0, true)) << 32n) | BigInt(view.getUint32(4, true)) });
    }
    return bad;
  }
}
