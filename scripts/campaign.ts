/**
 * `npm run campaign -- --minutes N [--seed S] [--only oracle|kill|outage] [--postgres 15,18] [--state FILE] [--json FILE]`
 *
 * Runs rounds of the disaster tests for as long as wanted, each from its own seed. A round that fails prints its
 * seed; `--seed` with `--rounds 1` and `--only` runs it again. The state file remembers the next seed and the
 * figures, so that a campaign can be ended (Ctrl-C) and gone on with: start it again without `--seed`.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { killRound, victims } from '../test/oracle/kill-round.ts';
import { oracleRound } from '../test/oracle/oracle-round.ts';
import * as outages from '../test/oracle/outage-scenes.ts';
import { Random } from '../test/oracle/random.ts';
import { type Figures, noFigures } from '../test/oracle/world.ts';
import { component, type PostgresMajor, postgresBinaries, postgresMajors } from './rig.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    rounds: { type: 'string' },
    seed: { type: 'string' },
    only: { type: 'string' },
    postgres: { type: 'string', default: '15,18' },
    state: { type: 'string', default: '.cache/campaign.json' },
    json: { type: 'string' },
  },
});

const kinds = ['oracle', 'kill', 'outage'] as const;
type Kind = (typeof kinds)[number];

interface Failure {
  readonly seed: number;
  readonly kind: Kind;
  readonly postgres: number;
  readonly message: string;
}

interface State {
  nextSeed: number;
  rounds: number;
  seconds: number;
  readonly figures: Figures;
  readonly failures: Failure[];
}

function usage(why: string): never {
  process.stderr.write(`${why}\n`);
  process.exit(2);
}

function whole(name: string, text: string): number {
  return /^\d{1,9}$/.test(text)
    ? Number(text)
    : usage(`--${name} wants a whole number, and "${text}" is none.`);
}

function chosenKinds(): readonly Kind[] {
  if (values.only === undefined) return kinds;
  const chosen = kinds.filter((kind) => kind === values.only);
  return chosen.length > 0 ? chosen : usage(`--only wants one of ${kinds.join(', ')}.`);
}

function chosenMajors(): PostgresMajor[] {
  const wanted = values.postgres.split(',').map((text) => whole('postgres', text));
  const chosen = postgresMajors.filter((major) => wanted.includes(major));
  return chosen.length === wanted.length
    ? chosen
    : usage(`--postgres wants some of ${postgresMajors.join(',')}.`);
}

async function begin(): Promise<State> {
  if (values.seed === undefined) {
    const text = await readFile(values.state, 'utf8').catch(() => undefined);
    if (text !== undefined) return JSON.parse(text) as State;
  }
  const nextSeed = values.seed === undefined ? 1 : whole('seed', values.seed);
  return { nextSeed, rounds: 0, seconds: 0, figures: noFigures(), failures: [] };
}

async function save(state: State): Promise<void> {
  await mkdir(dirname(values.state), { recursive: true });
  await writeFile(`${values.state}.new`, `${JSON.stringify(state, null, 2)}\n`);
  await rename(`${values.state}.new`, values.state);
}

/** The seed alone, with the options given, says what is run. */
async function runRound(seed: number, state: State, say: (line: string) => void): Promise<void> {
  const random = new Random(seed);
  const kind = random.pick(chosenKinds());
  const major = random.pick(chosenMajors());
  const { figures } = state;
  const title = `${kind}, PostgreSQL ${major}`;
  say(title);
  try {
    await component(`postgres-${major}`);
    const common = { binaries: await postgresBinaries(major), seed, figures, say };
    if (kind === 'oracle') await oracleRound({ ...common, random: 8, secondTimeline: random.below(2) === 0 });
    else if (kind === 'kill') await killRound({ ...common, victim: random.pick(victims), times: 3 });
    else await outage(random, common);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    state.failures.push({ seed, kind, postgres: major, message });
    process.stdout.write(
      `FAILED seed ${seed} (${title}): ${message}\n  again: npm run campaign -- --seed ${seed} --rounds 1${values.only === undefined ? '' : ` --only ${values.only}`} --postgres ${values.postgres} --state .cache/again.json\n`,
    );
  }
}

async function outage(random: Random, round: outages.OutageRound): Promise<void> {
  const root = process.getuid?.() === 0 && process.platform === 'linux';
  const scene = random.pick(['stop', 'away', 'back', ...(root ? ['full'] : [])]);
  round.say(scene);
  if (scene === 'stop') await outages.stopWhileOutOfReach(round);
  else if (scene === 'away') await outages.repositoryAway(round, random.between(1000, 20_000));
  else if (scene === 'back') await outages.putBack(round);
  else await outages.diskFull(round);
}

const state = await begin();
const started = performance.now();
const secondsBefore = state.seconds;
const until = started + whole('minutes', values.minutes) * 60_000;
const most = values.rounds === undefined ? Number.POSITIVE_INFINITY : whole('rounds', values.rounds);
let stopping = false;
process.once('SIGINT', () => {
  stopping = true;
  process.stdout.write('Ends after this round.\n');
});

for (let round = 0; round < most && performance.now() < until && !stopping; round += 1) {
  const seed = state.nextSeed;
  await runRound(seed, state, (line) => process.stdout.write(`[${seed}] ${line}\n`));
  state.nextSeed = seed + 1;
  state.rounds += 1;
  state.seconds = Math.round(secondsBefore + (performance.now() - started) / 1000);
  await save(state);
}

const { figures, failures, rounds, seconds, nextSeed } = state;
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(state, null, 2)}\n`);
process.stdout.write(
  `${rounds} rounds in ${seconds} s: ${figures.restores} restores, ${figures.refusals} refusals, ${figures.kills} kills, ${figures.transactions} transactions, ${figures.rowsCompared} rows compared, ${figures.losses} losses, ${failures.length} failed. Next seed: ${nextSeed}.\n`,
);
process.exit(failures.length > 0 ? 1 : 0);
