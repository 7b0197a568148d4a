/**
 * What is done to every byte of a data directory, in WebAssembly: a hash of each block under a secret seed, and
 * the sums behind PostgreSQL's page checksums. One call for a whole window of blocks, read straight into the
 * module's memory. Measured on one core of the reference machine: see docs/benchmarks.md.
 *
 * - Hashes are XXH3 with a 64-bit seed (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md, inputs over 240
 *   bytes) of blocks of 8 KiB; a shorter last block counts with zeros behind it, so only blocks of equal length
 *   may be compared.
 * - Sums are `pg_checksum_block` of PostgreSQL's src/include/storage/checksum_impl.h, with pd_checksum as zero.
 */
import {
  buildModule,
  type Code,
  call,
  get,
  i32,
  i64,
  loopWhile,
  set,
  tee,
  type,
  v128,
  type WasmFunction,
} from './wasm-builder.ts';

export const PAGE_BYTES = 8192;
/** Small enough that hashing, checking and compressing find it in the core's own cache. */
export const WINDOW_BYTES = 1 << 20;
const PAGES = WINDOW_BYTES / PAGE_BYTES;

/** Places in the module's memory. */
const at = { secret: 0, bases: 256, hashes: 4096, sums: 8192, data: 65_536 } as const;

const prime32 = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn] as const;
const prime64 = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

/** `kSecret` of the specification. */
const defaultSecret = Buffer.from(
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f' +
    'cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c' +
    '3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8' +
    'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364' +
    'eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e' +
    '2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e',
  'hex',
);
const SECRET_BYTES = 192;
const STRIPE = 64;
/** (192 − 64) / 8: after as many stripes the accumulators are scrambled. */
const STRIPES_PER_ROUND = 16;
const ROUND_BYTES = STRIPE * STRIPES_PER_ROUND;

function words64(values: readonly bigint[]): Uint8Array {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(value, 8 * i);
  return bytes;
}

function words32(values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i);
  return bytes;
}

const evenWords = [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11];
const oddWords = [4, 5, 6, 7, 12, 13, 14, 15, 4, 5, 6, 7, 12, 13, 14, 15];
const halvesSwapped = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];

// Locals of `hash`. Four accumulators of two lanes each.
const [count, page, out, round, accumulator, data, key, mixed] = [0, 1, 2, 3, 4, 8, 9, 10];
const lanes = [0, 1, 2, 3];

/** One stripe of 64 bytes at `page + offset`, with the secret from `secret` on. */
function stripe(offset: number, secret: number, base = page): Code {
  return lanes.map((lane) => [
    [get(base), v128.load(at.data + offset + 16 * lane), tee(data)],
    [i32.const(0), v128.load(at.secret + secret + 16 * lane), v128.xor, tee(key)],
    [get(key), v128.shuffle(evenWords), get(key), get(key), v128.shuffle(oddWords), v128.multiplyLow],
    [get(accumulator + lane), v128.i64x2Add],
    [get(data), get(data), v128.shuffle(halvesSwapped), v128.i64x2Add, set(accumulator + lane)],
  ]);
}

function stripes(number: number): Code {
  return Array.from({ length: number }, (_, i) => stripe(STRIPE * i, 8 * i));
}

function scramble(): Code {
  const prime = v128.const(words64([prime32[0], prime32[0]]));
  return lanes.map((lane) => {
    const own = accumulator + lane;
    return [
      [get(own), get(own), i32.const(47), v128.i64x2Shr, v128.xor],
      [i32.const(0), v128.load(at.secret + SECRET_BYTES - STRIPE + 16 * lane), v128.xor],
      [prime, v128.i64x2Mul, set(own)],
    ];
  });
}

/** The 128-bit product of two words, its halves xored: WebAssembly multiplies to 64 bits only. */
function fold(): WasmFunction {
  const low = (local: number): Code => [get(local), i64.const(0xffff_ffffn), i64.and];
  const high = (local: number): Code => [get(local), i64.const(32n), i64.shr];
  const [a, b, ll, hl, cross] = [0, 1, 2, 3, 4];
  return {
    name: 'fold',
    parameters: [type.i64, type.i64],
    results: [type.i64],
    locals: [type.i64, type.i64, type.i64],
    body: [
      [low(a), low(b), i64.mul, set(ll), high(a), low(b), i64.mul, set(hl)],
      [high(ll), low(hl), i64.add, low(a), high(b), i64.mul, i64.add, set(cross)],
      [high(hl), high(cross), i64.add, high(a), high(b), i64.mul, i64.add],
      [get(cross), i64.const(32n), i64.shl, low(ll), i64.or, i64.xor],
    ],
  };
}

function finishHash(): Code {
  const word = (lane: number): Code => [
    [get(accumulator + (lane >> 1)), v128.i64x2Lane(lane & 1)],
    [i32.const(0), i64.load(at.secret + 11 + 8 * lane), i64.xor],
  ];
  const shiftXor = (bits: bigint): Code => [tee(mixed), get(mixed), i64.const(bits), i64.shr, i64.xor];
  return [
    i64.const(BigInt(PAGE_BYTES) * prime64[0]),
    lanes.map((pair) => [word(2 * pair), word(2 * pair + 1), call(0), i64.add]),
    [shiftXor(37n), i64.const(0x165667919e3779f9n), i64.mul, shiftXor(32n)],
  ];
}

/** `hash(count)`: of the first `count` blocks of the window, eight bytes each. */
function hash(): WasmFunction {
  const start = [
    prime32[2],
    prime64[0],
    prime64[1],
    prime64[2],
    prime64[3],
    prime32[1],
    prime64[4],
    prime32[0],
  ];
  const rounds = Math.floor((PAGE_BYTES - 1) / ROUND_BYTES);
  const rest = Math.floor((PAGE_BYTES - 1 - rounds * ROUND_BYTES) / STRIPE);
  return {
    name: 'hash',
    parameters: [type.i32],
    results: [],
    locals: [
      ...[type.i32, type.i32, type.i32],
      ...[type.v128, type.v128, type.v128, type.v128, type.v128, type.v128],
      type.i64,
    ],
    body: loopWhile(
      [
        lanes.map((lane) => [
          v128.const(words64(start.slice(2 * lane, 2 * lane + 2))),
          set(accumulator + lane),
        ]),
        [i32.const(rounds), set(round)],
        loopWhile(
          [stripes(STRIPES_PER_ROUND), scramble(), get(page), i32.const(ROUND_BYTES), i32.add, set(page)],
          [get(round), i32.const(1), i32.sub, tee(round)],
        ),
        stripes(rest),
        // The last 64 bytes, with the secret from its own place.
        stripe(PAGE_BYTES - rounds * ROUND_BYTES - STRIPE, SECRET_BYTES - STRIPE - 7),
        [get(out), finishHash(), i64.store(at.hashes), get(out), i32.const(8), i32.add, set(out)],
        [get(page), i32.const(PAGE_BYTES - rounds * ROUND_BYTES), i32.add, set(page)],
      ],
      [get(count), i32.const(1), i32.sub, tee(count)],
    ),
  };
}

/** `checksumBaseOffsets` of checksum_impl.h. */
const checksumBases = [
  ...[0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c],
  ...[0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb],
  ...[0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4],
  ...[0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756],
];
const ROW = 128;
const vectors = [0, 1, 2, 3, 4, 5, 6, 7];

// Locals of `sums`.
const [saved, sum, mixing] = [4, 5, 13];

/** One step of the sum of vector `own`; `value` is left out for a word of zeros. */
function mix(own: number, value?: Code): Code {
  return [
    [get(own), ...(value === undefined ? [] : [value, v128.xor]), tee(mixing)],
    [v128.const(words32(Array(4).fill(16_777_619))), v128.i32x4Mul],
    [get(mixing), i32.const(17), v128.i32x4Shr, v128.xor, set(own)],
  ];
}

/** `sums(count)`: of the first `count` pages of the window, four bytes each. */
function sums(): WasmFunction {
  const rowsAtOnce = 4;
  const rows = PAGE_BYTES / ROW;
  const row = (i: number): Code =>
    vectors.map((v) => mix(sum + v, [get(page), v128.load(at.data + ROW * i + 16 * v)]));
  const folded: Code = [
    get(sum),
    vectors.slice(1).map((v) => [get(sum + v), v128.xor]),
    set(sum),
    [get(sum), v128.i32x4Lane(0), get(sum), v128.i32x4Lane(1), i32.xor],
    [get(sum), v128.i32x4Lane(2), i32.xor, get(sum), v128.i32x4Lane(3), i32.xor],
  ];
  return {
    name: 'sums',
    parameters: [type.i32],
    results: [],
    locals: [...[type.i32, type.i32, type.i32, type.i32], ...Array(9).fill(type.v128)],
    body: loopWhile(
      [
        vectors.map((v) => [i32.const(0), v128.load(at.bases + 16 * v), set(sum + v)]),
        // pd_checksum counts as zero; it is put back afterwards.
        [get(page), i32.load16(at.data + 8), set(saved), get(page), i32.const(0), i32.store16(at.data + 8)],
        [i32.const(rows / rowsAtOnce), set(round)],
        loopWhile(
          [
            Array.from({ length: rowsAtOnce }, (_, i) => row(i)),
            [get(page), i32.const(ROW * rowsAtOnce), i32.add, set(page)],
          ],
          [get(round), i32.const(1), i32.sub, tee(round)],
        ),
        vectors.map((v) => [mix(sum + v), mix(sum + v)]),
        [get(out), folded, i32.store(at.sums), get(out), i32.const(4), i32.add, set(out)],
        [get(page), i32.const(PAGE_BYTES), i32.sub, get(saved), i32.store16(at.data + 8)],
      ],
      [get(count), i32.const(1), i32.sub, tee(count)],
    ),
  };
}

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer };
  readonly hash: (count: number) => void;
  readonly sums: (count: number) => void;
}

/** The part of the global that is used: its types come with those of browsers only. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
};

/** The seed's secret: `kSecret` with the seed added and subtracted in turn. */
function secretOf(seed: Uint8Array): Uint8Array {
  const number = Buffer.from(seed).readBigUInt64LE(0);
  const words: bigint[] = [];
  for (let i = 0; i < SECRET_BYTES; i += 16) {
    words.push(BigInt.asUintN(64, defaultSecret.readBigUInt64LE(i) + number));
    words.push(BigInt.asUintN(64, defaultSecret.readBigUInt64LE(i + 8) - number));
  }
  return words64(words);
}

/** One window of blocks and what is computed over it. The views stay valid; the next call overwrites them. */
export class PageKernel {
  /** WINDOW_BYTES to read into. */
  readonly window: Uint8Array<ArrayBuffer>;
  /** Two words a block. */
  readonly hashWords: Uint32Array<ArrayBuffer>;
  readonly sumWords: Uint32Array<ArrayBuffer>;
  readonly #exports: Exports;

  /** `seed`: 8 bytes. */
  constructor(seed: Uint8Array) {
    const module = new WebAssembly.Module(buildModule([fold(), hash(), sums()], 1 + WINDOW_BYTES / 65_536));
    this.#exports = new WebAssembly.Instance(module).exports as Exports;
    const { buffer } = this.#exports.memory;
    new Uint8Array(buffer).set(secretOf(seed), at.secret);
    new Uint8Array(buffer).set(words32(checksumBases), at.bases);
    this.window = new Uint8Array(buffer, at.data, WINDOW_BYTES);
    this.hashWords = new Uint32Array(buffer, at.hashes, 2 * PAGES);
    this.sumWords = new Uint32Array(buffer, at.sums, PAGES);
  }

  /** Hashes of the first `count` blocks of the window into `hashWords`. */
  hash(count: number): void {
    if (count > 0) this.#exports.hash(count);
  }

  /** Sums of the first `count` pages of the window into `sumWords`. */
  sums(count: number): void {
    if (count > 0) this.#exports.sums(count);
  }
}
