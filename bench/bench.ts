/**
 * `npm run bench -- [case[:part]…] [--json FILE] [--runs N] [--folder DIR]`
 *
 * Runs each case against its peers on this machine, in turn, and prints medians, spreads and ratios. Exit
 * status 1 when a figure misses what it must reach; every figure is printed as it was measured.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Bench, BenchCase } from './bench-case.ts';
import { postgres } from './cases/postgres.ts';
import { postgresRemote } from './cases/postgres-remote.ts';
import { walPush } from './cases/wal-push.ts';
import { machine } from './machine.ts';
import { lineOf, missOf, type Row } from './result.ts';

const cases: readonly BenchCase<never>[] = [
  postgres as unknown as BenchCase<never>,
  postgresRemote as unknown as BenchCase<never>,
  walPush as unknown as BenchCase<never>,
];
const leastRuns = 5;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    runs: { type: 'string', default: String(leastRuns) },
    folder: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});

if (values.help === true) {
  console.log('npm run bench -- [case[:part]…] [--json FILE] [--runs N] [--folder DIR]\n');
  for (const { name, summary, parts } of cases) {
    console.log(`${name}  ${summary}\n    parts: ${Object.keys(parts).join(', ')}`);
  }
} else {
  process.exitCode = await main();
}

async function main(): Promise<number> {
  const chosen = choose(positionals);
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1)
    throw new Error(`--runs takes a number from 1 on, not ${values.runs}`);
  if (runs < leastRuns) console.log(`Only ${runs} runs: a look, not a measurement.`);
  const rows: Row[] = [];
  const about = machine();
  const versions: Record<string, string> = {};
  console.log(
    `${about.cores} cores (${about.cpu}), ${about.memoryGib} GiB, Linux ${about.kernel}, Node ${about.node}`,
  );
  for (const { bench, parts } of chosen) {
    Object.assign(versions, await bench.versions());
    console.log(
      Object.entries(versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(', '),
    );
    await runCase(bench, parts, runs, rows);
  }
  const missed = rows.map(missOf).filter((miss) => miss !== null);
  if (values.json !== undefined) {
    const document = { schema: 1, machine: about, versions, rows, missed };
    await writeFile(resolve(values.json), `${JSON.stringify(document, null, 2)}\n`);
  }
  console.log(
    missed.length === 0 ? '\nNothing missed.' : `\nMissed:\n${missed.map((miss) => `  ${miss}`).join('\n')}`,
  );
  return missed.length === 0 ? 0 : 1;
}

/** Cases and their parts in the order given; parts of one case share its set-up. */
function choose(names: readonly string[]) {
  const chosen = new Map<BenchCase<never>, Set<string>>();
  for (const text of names.length === 0 ? cases.map(({ name }) => name) : names) {
    const [name, part] = text.split(':') as [string, string | undefined];
    const bench = cases.find((candidate) => candidate.name === name);
    if (bench === undefined)
      throw new Error(`There is no case ${name}; there are: ${cases.map((c) => c.name).join(', ')}`);
    const all = Object.keys(bench.parts);
    if (part !== undefined && !all.includes(part))
      throw new Error(`${name} has no part ${part}; it has: ${all.join(', ')}`);
    const parts = chosen.get(bench) ?? new Set();
    for (const wanted of part === undefined ? all : [part]) parts.add(wanted);
    chosen.set(bench, parts);
  }
  return [...chosen].map(([bench, parts]) => ({ bench, parts: [...parts] }));
}

async function runCase(
  chosen: BenchCase<never>,
  parts: readonly string[],
  runs: number,
  rows: Row[],
): Promise<void> {
  const folder = await mkdtemp(join(values.folder ?? tmpdir(), 'holdfast-bench-'));
  const bench: Bench = {
    runs,
    folder,
    add: (row) => {
      rows.push(row);
      console.log(lineOf(row));
    },
    say: (text) => console.error(`  … ${text}`),
  };
  try {
    const fixture = await chosen.setUp(bench);
    try {
      for (const part of parts) await chosen.parts[part]!(bench, fixture);
    } finally {
      await (fixture as AsyncDisposable)[Symbol.asyncDispose]();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
