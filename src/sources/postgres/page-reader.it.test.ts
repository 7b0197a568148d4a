import { randomBytes } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { PageCheck } from './page-checksum.ts';
import { PAGE_BYTES, PageKernel, WINDOW_BYTES } from './page-kernel.ts';
import { createReader, type PageAnswer, type Stretch, type StretchRead } from './page-reader.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-pages-'));
const path = join(folder, 'file');
afterAll(() => rmSync(folder, { recursive: true }));

const frameBytes = 1 << 20;

/** Gathers frames as a pack does. */
class Frames {
  readonly frames: Buffer[] = [Buffer.alloc(0)];
  get room(): number {
    return frameBytes - (this.frames.at(-1) as Buffer).length;
  }
  append(blocks: Uint8Array) {
    if (blocks.length > this.room) this.frames.push(Buffer.alloc(0));
    const frame = this.frames.length - 1;
    const offset = (this.frames[frame] as Buffer).length;
    this.frames[frame] = Buffer.concat([this.frames[frame] as Buffer, blocks]);
    return { pack: 5, frame, offset };
  }
}

const seed = randomBytes(8);
const reader = createReader(null, seed);

function read(change: Partial<Stretch>): { answer: StretchRead; frames: Frames } {
  const frames = new Frames();
  const stretch = { path, offset: 0, length: 0, known: null, knownBytes: 0, firstBlock: null, ...change };
  const { read } = reader.read(
    { bytes: stretch.length, stretches: [stretch] } as never,
    frames,
  ) as PageAnswer;
  return { answer: read[0] as StretchRead, frames };
}

/** What the file is by the answer: blocks handed over, the rest as before. */
function rebuilt({ answer, frames }: ReturnType<typeof read>, before: Buffer): Buffer {
  const result = Buffer.alloc(answer.length ?? 0);
  before.copy(result);
  for (let i = 0; i < answer.runs.length; i += 5) {
    const [block = 0, count = 0, , frame = 0, offset = 0] = answer.runs.subarray(i, i + 5);
    const length = Math.min(count * PAGE_BYTES, result.length - block * PAGE_BYTES);
    (frames.frames[frame] as Buffer).copy(result, block * PAGE_BYTES, offset, offset + length);
  }
  return result;
}

describe('reading a stretch', () => {
  it('hands over everything at first, in whole frames, and then what differs only', () => {
    for (const length of [1, PAGE_BYTES, 3 * PAGE_BYTES + 5, 2 * WINDOW_BYTES, 3 * WINDOW_BYTES + 70_001]) {
      const before = randomBytes(length);
      writeFileSync(path, before);
      const first = read({ length });
      expect(rebuilt(first, Buffer.alloc(0)).equals(before)).toBe(true);
      if (length >= WINDOW_BYTES) expect((first.frames.frames[0] as Buffer).length).toBe(frameBytes);
      const { hashes } = first.answer;
      expect(read({ length, known: hashes, knownBytes: length }).answer.runs).toHaveLength(0);
      const after = Buffer.from(before);
      const places = new Set<number>();
      for (let i = 0; i < 5; i++) {
        const at = Math.floor(Math.random() * length);
        after[at] = (after[at] as number) ^ 0x10;
        places.add(Math.floor(at / PAGE_BYTES));
      }
      writeFileSync(path, after);
      const second = read({ length, known: hashes, knownBytes: length });
      expect(rebuilt(second, before).equals(after)).toBe(true);
      let handed = 0;
      for (let i = 1; i < second.answer.runs.length; i += 5) handed += second.answer.runs[i] as number;
      expect(handed).toBeLessThanOrEqual(places.size);
    }
  });

  it('takes a short block that grew by zeros for another one', () => {
    const short = randomBytes(PAGE_BYTES + 100);
    writeFileSync(path, short);
    const { hashes } = read({ length: short.length }).answer;
    const grown = Buffer.concat([short, Buffer.alloc(50)]);
    writeFileSync(path, grown);
    const again = read({ length: grown.length, known: hashes, knownBytes: short.length });
    expect([...again.answer.runs.subarray(0, 2)]).toEqual([1, 1]);
    expect(rebuilt(again, short).equals(grown)).toBe(true);
  });

  it('reads no further than asked, and says when there is less or nothing', () => {
    const content = randomBytes(5 * PAGE_BYTES);
    writeFileSync(path, content);
    expect(read({ offset: PAGE_BYTES, length: PAGE_BYTES }).answer.length).toBe(PAGE_BYTES);
    truncateSync(path, 2 * PAGE_BYTES);
    const cut = read({ length: 5 * PAGE_BYTES });
    expect(cut.answer.length).toBe(2 * PAGE_BYTES);
    expect(rebuilt(cut, Buffer.alloc(0)).equals(content.subarray(0, 2 * PAGE_BYTES))).toBe(true);
    expect(read({ offset: 4 * PAGE_BYTES, length: PAGE_BYTES }).answer).toMatchObject({ length: 0 });
    rmSync(path);
    expect(read({ length: PAGE_BYTES }).answer.length).toBeNull();
  });
});

describe('page checksums', () => {
  const kernel = new PageKernel(seed);
  /** Pages with the checksum that they have as block `first`, `first + 1`, … */
  function pages(first: number, count: number): Buffer {
    const content = randomBytes(count * PAGE_BYTES);
    for (let i = 0; i < count; i++) {
      kernel.window.set(content.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
      kernel.sums(1);
      const sum = (((kernel.sumWords[0] as number) ^ (first + i)) >>> 0) % 65_535;
      content.writeUInt16LE(sum + 1, i * PAGE_BYTES + 8);
    }
    return content;
  }

  it('belong to the block’s number in the relation, over its segments', () => {
    const segment = 131_072;
    writeFileSync(path, pages(segment, 130));
    expect(read({ length: 130 * PAGE_BYTES, firstBlock: segment }).answer.bad).toEqual([]);
    // The same pages elsewhere are wrong, every one of them (but for a chance of one in 65535).
    const elsewhere = read({ length: 130 * PAGE_BYTES, firstBlock: 0 }).answer.bad;
    expect(elsewhere.length).toBeGreaterThan(125);
    const tail = read({ offset: 100 * PAGE_BYTES, length: 30 * PAGE_BYTES, firstBlock: segment + 100 });
    expect(tail.answer.bad).toEqual([]);
  });

  it('name the block and its LSN, skip new pages, and look at files of pages only', () => {
    const content = pages(0, 140);
    content.fill(0, 3 * PAGE_BYTES, 4 * PAGE_BYTES);
    content.writeUInt32LE(0xab, 133 * PAGE_BYTES);
    content.writeUInt32LE(0xcd01, 133 * PAGE_BYTES + 4);
    writeFileSync(path, content);
    const { answer, frames } = read({ length: content.length, firstBlock: 0 });
    expect(answer.bad).toEqual([{ block: 133, lsn: 0xab_0000_cd01n }]);
    // Looking again did not disturb what was handed over.
    expect(rebuilt({ answer, frames }, Buffer.alloc(0)).equals(content)).toBe(true);
    expect(read({ length: content.length, firstBlock: null }).answer.bad).toEqual([]);
  });

  it('count nothing as damage that changes while it is looked at', () => {
    const content = pages(0, 2);
    content[100] = (content[100] as number) ^ 1;
    writeFileSync(path, content);
    const check = new PageCheck(kernel);
    kernel.window.set(content);
    const suspects = check.suspects(0, 2);
    expect(suspects.map(({ block }) => block)).toEqual([0]);
    const fd = openSync(path, 'r+');
    expect(check.confirm(fd, suspects, 0).map(({ block }) => block)).toEqual([0]);
    writeSync(fd, Buffer.from([content[100] as number, 1]), 0, 2, 100);
    expect(check.confirm(fd, suspects, 0)).toEqual([]);
    closeSync(fd);
  });
});
