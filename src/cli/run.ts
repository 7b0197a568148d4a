/**
 * Runs one command: gives it progress, log, clock and a signal that Ctrl-C aborts, prints what it returns, and
 * turns what it throws into words and an exit status.
 */
import type { Command } from 'commander';
import { systemClock } from '../core/clock.ts';
import type { RunContext } from '../core/context.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { createLogger, type LogFormat, type LogLevel } from '../core/log.ts';
import { Secrets } from '../core/redaction.ts';
import type { Workspace } from '../operations/workspace.ts';
import { type CommandOutcome, printError, printOutcome } from './output.ts';
import { openProgressDisplay, type ProgressDisplay } from './progress-display.ts';

export interface GlobalOptions {
  readonly config?: string;
  readonly repository?: string;
  readonly json?: boolean;
  readonly progress?: 'auto' | 'tree' | 'plain' | 'json' | 'none';
  readonly logLevel?: LogLevel;
  readonly timezone?: string;
}

/** What the work of a command is given. */
export interface CommandRun {
  readonly globals: GlobalOptions;
  readonly cwd: string;
  readonly secrets: Secrets;
  readonly signal: AbortSignal;
  /** Writes a line for people to standard error, beside the progress. Not with `--json`. */
  readonly say: (text: string) => void;
  /** Reads the configuration; closed when the command ends. */
  workspace(): Promise<Workspace>;
  /** Context for operations; its log follows the configuration where the workspace was read before. */
  context(): RunContext;
}

/** The action of a command: never rejects, sets the exit status. */
export async function runCommand(
  command: Command,
  work: (run: CommandRun) => Promise<CommandOutcome>,
): Promise<void> {
  const globals = command.optsWithGlobals<GlobalOptions>();
  const name = nameOf(command);
  const json = globals.json === true;
  const secrets = new Secrets();
  const interruption = new Interruption();
  const display = openProgressDisplay({ mode: progressMode(globals), secrets });
  const run = new Running(globals, secrets, interruption.signal, display);
  try {
    refuseEmpty(command);
    if (globals.timezone !== undefined) await refuseUnknownZone(globals.timezone);
    const outcome = await work(run);
    await run.close();
    display.close();
    process.exitCode = printOutcome(name, outcome, json);
  } catch (error) {
    display.close();
    const thrown =
      interruption.signal.aborted && !isHoldfastError(error) ? interruption.signal.reason : error;
    const stack = globals.logLevel === 'debug';
    process.exitCode = printError(name, thrown, { json, stack, clean: (text) => secrets.redact(text) });
    await run.close();
  } finally {
    interruption.end();
  }
}

/** `--snapshot "$ID"` with an unset variable must not mean any snapshot, nor `--to ""` the current folder. */
function refuseEmpty(command: Command): void {
  const options = command.optsWithGlobals<Record<string, unknown>>();
  const empty = Object.keys(options).find((name) => options[name] === '');
  const flag = empty?.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const what = flag !== undefined ? `--${flag}` : command.args.includes('') ? 'An argument' : undefined;
  if (what === undefined) return;
  throw new HoldfastError('command.usage', `${what} was given without a value.`, {
    next: 'Give it a value, or leave it out. In a script, see that the variable behind it is set.',
  });
}

/** By every verb, also those that read no time: a zone that is quietly ignored is believed. */
async function refuseUnknownZone(zone: string): Promise<void> {
  const { isTimeZone } = await import('../core/time.ts');
  if (isTimeZone(zone)) return;
  throw new HoldfastError('command.usage', `--timezone ${zone}: no time zone is called that.`, {
    next: 'Write UTC or a name such as Europe/Berlin; `timedatectl list-timezones` lists them.',
  });
}

/** `key list` for a verb below a verb. */
function nameOf(command: Command): string {
  const parent = command.parent;
  return parent === null || parent.parent === null ? command.name() : `${parent.name()} ${command.name()}`;
}

function progressMode({ progress, json }: GlobalOptions): 'auto' | 'terminal' | 'plain' | 'json' | 'none' {
  if (progress === 'tree') return 'terminal';
  if (progress !== undefined) return progress;
  // Who asks for JSON is a program: plain lines on standard error would only be noise, unless a person watches.
  return json && !process.stderr.isTTY ? 'none' : 'auto';
}

class Running implements CommandRun {
  readonly globals: GlobalOptions;
  readonly cwd = process.cwd();
  readonly secrets: Secrets;
  readonly signal: AbortSignal;
  readonly #display: ProgressDisplay;
  #workspace: Workspace | undefined;

  constructor(globals: GlobalOptions, secrets: Secrets, signal: AbortSignal, display: ProgressDisplay) {
    this.globals = globals;
    this.secrets = secrets;
    this.signal = signal;
    this.#display = display;
  }

  readonly say = (text: string): void => {
    if (this.globals.json !== true) this.#display.print(`${this.secrets.redact(text)}\n`);
  };

  async workspace(): Promise<Workspace> {
    if (this.#workspace === undefined) {
      const { Workspace } = await import('../operations/workspace.ts');
      const { config, repository } = this.globals;
      this.#workspace = await Workspace.load({ config, repository, secrets: this.secrets, cwd: this.cwd });
    }
    return this.#workspace;
  }

  context(): RunContext {
    const configured = this.#workspace?.configuration.log;
    const level: LogLevel = this.globals.logLevel ?? configured?.level ?? 'info';
    const format: LogFormat = configured?.format ?? 'text';
    const write = (line: string) => this.#display.print(line);
    const log = createLogger({ level, format, write, secrets: this.secrets });
    return { signal: this.signal, progress: this.#display.progress, clock: systemClock, log };
  }

  async close(): Promise<void> {
    await this.#workspace?.close();
  }
}

/** SIGINT, SIGTERM and SIGHUP abort; a second SIGINT ends at once, as whoever presses Ctrl-C twice expects. */
class Interruption {
  readonly #controller = new AbortController();
  readonly #on = (signal: NodeJS.Signals): void => {
    if (this.signal.aborted) process.exit(130);
    this.#controller.abort(
      new HoldfastError('system.interrupted', `The command was interrupted by ${signal}.`),
    );
  };

  constructor() {
    for (const signal of signals) process.on(signal, this.#on);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    for (const signal of signals) process.off(signal, this.#on);
  }
}

const signals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];
