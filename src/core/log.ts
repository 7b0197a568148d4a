/** Structured logs. Rendering and redaction are the sink's; callers pass facts, never secrets. */
import { isSecretName, Secrets } from './redaction.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

export type LogFormat = 'text' | 'json';

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  log(level: LogLevel, message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds `fields` to every record. */
  with(fields: LogFields): Logger;
}

export interface LoggerOptions {
  /** Records below this level are dropped before anything is rendered. Default `info`. */
  readonly level?: LogLevel;
  /** `text`: a line for people; `json`: one object a line. Default `text`. */
  readonly format?: LogFormat;
  /** Takes one finished, redacted line, newline included. Must not throw. */
  readonly write: (line: string) => void;
  /** Values that are replaced wherever they appear. Values added later count too. */
  readonly secrets?: Secrets;
  /** Wall clock in ms since 1970. Default the system's. */
  readonly now?: () => number;
}

/** A logger that renders, redacts and hands each record to `write` as one line. */
export function createLogger(options: LoggerOptions): Logger {
  const format = options.format ?? 'text';
  const threshold = logLevels.indexOf(options.level ?? 'info');
  const secrets = options.secrets ?? new Secrets();
  const now = options.now ?? Date.now;
  return loggerOver((level, message, fields) => {
    if (logLevels.indexOf(level) < threshold) return;
    const time = new Date(now()).toISOString();
    const clean = (text: string) => secrets.redact(text);
    const safe = safeFields(fields, clean);
    options.write(
      format === 'json'
        ? `${JSON.stringify({ ...safe, time, level, message: clean(message) })}\n`
        : `${time} ${level.padEnd(5)} ${oneLine(clean(message))}${textFields(safe)}\n`,
    );
  }, {});
}

/** A logger that nobody reads. */
export const silentLogger: Logger = loggerOver(() => undefined, {});

type Emit = (level: LogLevel, message: string, fields: LogFields) => void;

function loggerOver(emit: Emit, bound: LogFields): Logger {
  const log = (level: LogLevel, message: string, fields?: LogFields) =>
    emit(level, message, fields === undefined ? bound : { ...bound, ...fields });
  return {
    log,
    debug: (message, fields) => log('debug', message, fields),
    info: (message, fields) => log('info', message, fields),
    warn: (message, fields) => log('warn', message, fields),
    error: (message, fields) => log('error', message, fields),
    with: (fields) => loggerOver(emit, { ...bound, ...fields }),
  };
}

type Clean = (text: string) => string;

function safeFields(fields: LogFields, clean: Clean): Record<string, unknown> {
  const safe: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) safe[name] = isSecretName(name) ? '***' : safeField(name, value, clean, 0);
  }
  return safe;
}

/** Codes are what people look up, and no place for a secret: a passphrase `wrong` must not blank half of them. */
function safeField(name: string, value: unknown, clean: Clean, depth: number): unknown {
  const isCode = name === 'code' && typeof value === 'string' && /^[A-Za-z0-9_.-]{1,60}$/.test(value);
  return isCode ? value : safeValue(value, clean, depth);
}

// Deep or endless values would make one record a flood; facts are shallow.
const maxDepth = 5;

function safeValue(value: unknown, clean: Clean, depth: number): unknown {
  if (typeof value === 'string') return clean(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'function' || typeof value === 'symbol') return `<${typeof value}>`;
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} bytes>`;
  if (depth >= maxDepth) return '<deeper>';
  if (value instanceof Error) return safeError(value, clean, depth);
  if (Array.isArray(value)) return value.map((item) => safeValue(item, clean, depth + 1));
  const entries = value instanceof Map ? value.entries() : Object.entries(value);
  const safe: Record<string, unknown> = {};
  for (const [name, item] of entries) {
    const key = String(name);
    if (item !== undefined) safe[clean(key)] = isSecretName(key) ? '***' : safeValue(item, clean, depth + 1);
  }
  return safe;
}

function safeError(error: Error, clean: Clean, depth: number): Record<string, unknown> {
  const safe: Record<string, unknown> = { name: error.name, message: clean(error.message) };
  for (const [name, value] of Object.entries(error)) {
    if (name === 'name' || name === 'cause' || value === undefined) continue;
    safe[name] = isSecretName(name) ? '***' : safeField(name, value, clean, depth + 1);
  }
  if (error.cause !== undefined) safe.cause = safeValue(error.cause, clean, depth + 1);
  return safe;
}

function textFields(fields: Record<string, unknown>): string {
  return Object.entries(fields)
    .map(([name, value]) => ` ${name}=${textValue(value)}`)
    .join('');
}

function textValue(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value) ?? String(value);
  return /^[\w.:/@+%,-]+$/.test(value) ? value : JSON.stringify(value);
}

/** Line breaks and control characters from outside must not forge records or drive a terminal. */
function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (c) => {
    if (c === '\n') return '\\n';
    return `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

export { Secrets } from './redaction.ts';
