/** What a command says: for people, or as one JSON document. Standard output is for results, standard error for the rest. */
import type { Command, CommanderError } from 'commander';
import { type ExitStatus, HoldfastError } from '../core/errors.ts';

/** How a command ended well (or with findings): what `--json` prints, and what people read. */
export interface CommandOutcome {
  /** camelCase; times ISO 8601 UTC, sizes in bytes, durations in ms, positions and big numbers as strings. */
  readonly result: unknown;
  readonly text: string;
  /** Default 0. */
  readonly exit?: ExitStatus;
}

/**
 * A reader that closed its end (`holdfast list | head`) has seen enough: that is no failure. A result that could
 * not be written (a full disk) is one, though what the command did stands.
 */
export function whenPipeCloses(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    const lost = new HoldfastError(
      error.code === 'ENOSPC' ? 'system.disk-full' : 'system.file-failed',
      `Standard output could not be written: ${error.message}. What the command did stands; only its report is lost.`,
    );
    // After what the command itself sets: its own status says how the work ended, not that nobody can read it.
    process.on('exit', () => {
      process.exitCode ||= lost.exit;
    });
    process.stderr.write(errorText(lost, undefined));
  });
  process.stderr.on('error', (error: NodeJS.ErrnoException) => {
    // Nowhere is left to tell it; the exit status still says how the command ended.
    if (error.code !== 'EPIPE') process.exitCode ||= 1;
  });
}

export function printOutcome(command: string, outcome: CommandOutcome, json: boolean): ExitStatus {
  if (json) writeDocument({ schema: 1, command, result: outcome.result });
  else if (outcome.text !== '') process.stdout.write(`${outcome.text.trimEnd()}\n`);
  return outcome.exit ?? 0;
}

/** Prints an error and returns the exit status. `clean` takes secrets out of texts. */
export function printError(
  command: string,
  error: unknown,
  options: { readonly json: boolean; readonly clean?: (text: string) => string; readonly stack?: boolean },
): ExitStatus {
  const clean = options.clean ?? ((text: string) => text);
  const known = asHoldfastError(error);
  if (options.json) {
    const { code, message, next, details } = known;
    const told = { code, message: clean(message), next: clean(next), details: cleanValue(details, clean) };
    writeDocument({ schema: 1, command, error: { ...told, exit: known.exit } });
    return known.exit;
  }
  process.stderr.write(errorText(known, options.stack === true ? error : undefined, clean));
  return known.exit;
}

/** Names of fields and codes are ours and stay: masked ones would show what the secret is, and no script knows them. */
function cleanValue(value: unknown, clean: (text: string) => string): unknown {
  if (typeof value === 'string') return clean(value);
  if (Array.isArray(value)) return value.map((item) => cleanValue(item, clean));
  if (typeof value !== 'object' || value === null) return value;
  const plain: unknown = JSON.parse(JSON.stringify(value, jsonValue));
  if (typeof plain !== 'object' || plain === null || Array.isArray(plain)) return cleanValue(plain, clean);
  return Object.fromEntries(
    Object.entries(plain).map(([name, item]) => [name, name === 'code' ? item : cleanValue(item, clean)]),
  );
}

function asHoldfastError(error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new HoldfastError('system.internal', `Something unforeseen happened: ${message}`, { cause: error });
}

/** What happened and why, what to do next, and the code under which `docs/errors.md` explains it. */
function errorText(error: HoldfastError, thrown: unknown, clean = (text: string) => text): string {
  const lines = [`holdfast: ${error.message}`, ...causes(error).map((text) => `  because: ${text}`)];
  lines.push(indent('  next: ', error.next));
  const stack = thrown instanceof Error && thrown.stack !== undefined ? `${clean(thrown.stack)}\n` : '';
  // A code is no text that could hold a secret, and it is what people look up.
  return `${clean(lines.join('\n'))}\n  code: ${error.code}\n${stack}`;
}

/** Causes that say more than what was said already. */
function causes(error: HoldfastError): string[] {
  const texts: string[] = [];
  let cause: unknown = error.cause;
  for (let depth = 0; cause instanceof Error && depth < 3; depth += 1) {
    const { message } = cause;
    if (message !== '' && !error.message.includes(message) && !texts.includes(message)) texts.push(message);
    cause = cause.cause;
  }
  return texts;
}

function indent(label: string, text: string): string {
  return label + text.split('\n').join(`\n${' '.repeat(label.length)}`);
}

function writeDocument(document: unknown): void {
  process.stdout.write(`${JSON.stringify(document, jsonValue, 2)}\n`);
}

function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

/** What commander could not parse, in our words. Returns the exit status. */
export function reportUsage(error: CommanderError, argv: readonly string[], program: Command): ExitStatus {
  const json = argv.includes('--json');
  const words = argv.filter((argument) => !argument.startsWith('-'));
  // The first word may be the value of an option that stands before the verb.
  const known = words.find((word) => program.commands.some((command) => command.name() === word));
  const verb = known ?? words[0] ?? '';
  if (error.code === 'commander.help' && !json) {
    const command = program.commands.find((candidate) => candidate.name() === verb) ?? program;
    process.stderr.write(command.helpInformation());
    return 2;
  }
  const text = error.code === 'commander.help' ? 'No verb was given' : error.message.replace(/^error: /, '');
  const [what = '', hint] = text.trim().split('\n');
  const sentence = `${what[0]?.toUpperCase() ?? ''}${what.slice(1).replace(/\.$/, '')}.`;
  const usage = new HoldfastError(
    'command.usage',
    sentence,
    hint === undefined ? {} : { next: hint.replace(/^\(|\)$/g, '') },
  );
  return printError(verb, usage, { json });
}
