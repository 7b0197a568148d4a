/**
 * A process that the disaster tests kill, trace or starve: puts objects into the local store given first and
 * prints a line for each answer, written out at once so that what was printed had been acknowledged.
 *
 *   store-writer.ts ROOT endless         objects named by their digest, four at a time, until killed
 *   store-writer.ts ROOT put NAME BYTES [NAME BYTES …]
 *   store-writer.ts ROOT abort MS NAME BYTES   aborts the put after so many milliseconds
 *   store-writer.ts ROOT race COUNT TEXT   the names race/0… with the content TEXT, once a line comes in
 */
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { isHoldfastError } from '../../src/core/errors.ts';
import { openStore } from '../../src/storage/open.ts';

const [root = '', mode = '', ...rest] = process.argv.slice(2);
const store = await openStore(root, { resilience: false });
const say = (line: string) => writeSync(1, `${line}\n`);
say('READY');

async function put(name: string, content: readonly Uint8Array[], signal?: AbortSignal): Promise<void> {
  try {
    say(`ACK ${name} ${(await store.put(name, content, signal && { signal })).outcome}`);
  } catch (error) {
    if (error === signal?.reason) return void say(`ABORTED ${name}`);
    if (!isHoldfastError(error)) throw error;
    say(`ERROR ${name} ${error.code} ${error.exit}`);
  }
}

async function endless(): Promise<never> {
  for (;;) {
    const content = [randomBytes(randomInt(200_000)), randomBytes(randomInt(100_000))];
    const digest = createHash('sha256').update(Buffer.concat(content)).digest('hex');
    await put(`packs/${digest.slice(0, 2)}/${digest}`, content);
  }
}

if (mode === 'endless') {
  await Promise.all([endless(), endless(), endless(), endless()]);
} else if (mode === 'put') {
  for (let i = 0; i < rest.length; i += 2)
    await put(rest[i] ?? '', [Buffer.alloc(Number(rest[i + 1]), rest[i])]);
} else if (mode === 'abort') {
  const [ms, name = '', bytes] = rest;
  await put(name, [Buffer.alloc(Number(bytes), name)], AbortSignal.timeout(Number(ms)));
} else {
  await once(process.stdin, 'data');
  for (let i = 0; i < Number(rest[0]); i += 1) await put(`race/${i}`, [Buffer.from(rest[1] ?? '')]);
  process.stdin.destroy();
}
await store.close();
