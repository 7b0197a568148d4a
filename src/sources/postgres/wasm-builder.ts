/**
 * Just enough of WebAssembly's binary form to write the page kernel in place: no compiler is needed to build
 * Holdfast, no opaque binary lies in the repository, and unrolled code comes from ordinary loops.
 * Opcodes: https://webassembly.github.io/spec/core/binary/instructions.html
 */

/** Bytes of code; nested lists are flattened. */
export type Code = readonly (number | Code)[];

export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const more = rest > 0x7f ? 0x80 : 0;
    bytes.push((rest & 0x7f) | more);
    rest >>>= 7;
  } while (rest > 0);
  return bytes;
}

function signed(value: bigint): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const last = (rest === 0n && low < 0x40) || (rest === -1n && low >= 0x40);
    bytes.push(last ? low : low | 0x80);
    if (last) return bytes;
  }
}

export const get = (local: number): Code => [0x20, unsigned(local)];
export const set = (local: number): Code => [0x21, unsigned(local)];
export const tee = (local: number): Code => [0x22, unsigned(local)];
export const call = (index: number): Code => [0x10, unsigned(index)];

/** Repeats `body` while `condition` (an i32 on the stack) is not zero. At least once. */
export const loopWhile = (body: Code, condition: Code): Code => [
  [0x03, 0x40],
  body,
  condition,
  [0x0d, 0],
  0x0b,
];

const memory =
  (opcode: number) =>
  (offset: number): Code => [opcode, 0, unsigned(offset)];

export const i32 = {
  const: (value: number): Code => [0x41, signed(BigInt(value | 0))],
  add: [0x6a],
  sub: [0x6b],
  xor: [0x73],
  load16: memory(0x2f),
  store: memory(0x36),
  store16: memory(0x3b),
} as const;

export const i64 = {
  const: (value: bigint): Code => [0x42, signed(BigInt.asIntN(64, value))],
  add: [0x7c],
  mul: [0x7e],
  and: [0x83],
  or: [0x84],
  xor: [0x85],
  shl: [0x86],
  shr: [0x88],
  load: memory(0x29),
  store: memory(0x37),
} as const;

const simd = (opcode: number): Code => [0xfd, unsigned(opcode)];

export const v128 = {
  load: (offset: number): Code => [simd(0x00), 0, unsigned(offset)],
  const: (bytes: Uint8Array): Code => [simd(0x0c), [...bytes]],
  xor: simd(0x51),
  /** Of one operand: byte `n` of the result is byte `lanes[n]`. Takes it twice from the stack. */
  shuffle: (lanes: readonly number[]): Code => [simd(0x0d), [...lanes]],
  i32x4Lane: (lane: number): Code => [simd(0x1b), lane],
  i32x4Mul: simd(0xb5),
  i32x4Shr: simd(0xad),
  i64x2Lane: (lane: number): Code => [simd(0x1d), lane],
  i64x2Add: simd(0xce),
  i64x2Mul: simd(0xd5),
  i64x2Shr: simd(0xcd),
  /** The lower two 32-bit lanes of each operand, multiplied to 64 bits. */
  multiplyLow: simd(0xde),
} as const;

export const type = { i32: 0x7f, i64: 0x7e, v128: 0x7b } as const;

export interface WasmFunction {
  readonly name: string;
  readonly parameters: readonly number[];
  readonly results: readonly number[];
  /** Types of the locals behind the parameters. */
  readonly locals: readonly number[];
  readonly body: Code;
}

const vector = (items: readonly Code[]): Code => [unsigned(items.length), items];
const flat = (code: Code): number[] => code.flat(Number.POSITIVE_INFINITY as 1) as number[];
const sized = (code: Code): Code => {
  const bytes = flat(code);
  return [unsigned(bytes.length), bytes];
};
const section = (id: number, items: readonly Code[]): Code => [id, sized(vector(items))];
const text = (value: string): Code => sized([...Buffer.from(value, 'utf8')]);

/** A module of these functions, all exported by name, and one memory of so many 64 KiB pages, exported as `memory`. */
export function buildModule(functions: readonly WasmFunction[], pages: number): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ parameters, results }) => [
    0x60,
    vector(parameters.map((p) => [p])),
    vector(results.map((r) => [r])),
  ]);
  const exported = [
    [text('memory'), 2, 0],
    ...functions.map(({ name }, index) => [text(name), 0, unsigned(index)]),
  ];
  const bodies = functions.map(({ locals, body }) =>
    sized([vector(locals.map((local) => [1, local])), body, 0x0b]),
  );
  const module: Code = [
    [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    section(1, types),
    section(
      3,
      functions.map((_, index) => unsigned(index)),
    ),
    section(5, [[1, unsigned(pages), unsigned(pages)]]),
    section(7, exported),
    section(10, bodies),
  ];
  return new Uint8Array(flat(module));
}
