/** Checks what was read against the schemas, collects every mistake with its place, and notes where values came from. */
import { z } from 'zod';
import { type ConfigDocument, nearest, type Position, pathKey } from './config-document.ts';
import { allowedNames, configurationSchema } from './config-schema.ts';
import type { KeySettings, LoadOptions, SourceConfiguration, Variables } from './configuration.ts';
import { HoldfastError } from './errors.ts';
import { isSecretName, type Secrets } from './redaction.ts';

/** What is to be checked: a file's document, or the values of zero configuration. */
export interface ConfigSource {
  /** The file as messages name it; null in zero configuration. */
  readonly label: string | null;
  readonly document: ConfigDocument | { readonly value: unknown };
  readonly variables: Variables;
}

export interface CheckOptions extends LoadOptions {
  readonly secrets: Secrets;
  readonly base: string;
}

export interface Checked {
  readonly value: {
    readonly repository: string;
    readonly key: KeySettings;
    readonly state?: string | undefined;
    readonly timezone: string;
    readonly environment?: string | undefined;
    readonly log: z.output<typeof configurationSchema>['log'];
    readonly sources: Record<string, SourceConfiguration>;
  };
  readonly origins: Record<string, string>;
}

interface Mistake {
  readonly message: string;
  readonly position: Position | null;
}

/** @throws `config.invalid` with all mistakes, in the order of the file. */
export function checkConfiguration(source: ConfigSource, options: CheckOptions): Checked {
  const document = 'problems' in source.document ? source.document : null;
  const mistakes: Mistake[] = document === null ? [] : [...document.problems];
  const fail = () => refuse(mistakes, source, options.secrets);
  if (mistakes.length > 0) fail();

  const input = withOverrides(withoutEmpty(source.document.value), options);
  registerSecrets(input, options.secrets);
  const { ofKey: missingVariables, ofSources } = noteMissing(document, mistakes);
  const parsed = parse(configurationSchema, input, [], document, mistakes);
  const sources: Record<string, SourceConfiguration> = {};
  for (const [name, raw] of Object.entries(rawSources(input))) {
    const missing = ofSources.get(name) ?? [];
    const found: Mistake[] = [];
    const checked = checkSource(name, raw, options.kinds, document, found);
    // What a schema says of a text with a hole in it follows from the hole.
    const others = found.filter(
      ({ position }) => !missing.some((one) => isSamePlace(one.position, position)),
    );
    mistakes.push(...others);
    if (missing.length === 0) {
      if (checked !== null) sources[name] = checked;
    } else if (others.length === 0) {
      const { kind, ...settings } = raw as { readonly kind: string };
      const lines = linesOf(missing, source, options.secrets);
      sources[name] = { name, kind, settings: checked?.settings ?? settings, missing: lines };
    }
  }
  if (mistakes.length > 0 || parsed === null) return fail();

  const { repository, key, ...rest } = parsed;
  const { passphrase, ...otherKey } = key;
  // Backing up needs no key, so a variable that only the key names may be absent on the hosts that back up.
  const withKey = missingVariables.length > 0 ? { missingVariables } : passphrase ? { passphrase } : {};
  return {
    value: {
      ...rest,
      repository: typeof repository === 'string' ? repository : repository.address,
      key: { ...otherKey, ...withKey },
      sources,
    },
    origins: originsOf(input, source, options),
  };
}

function withOverrides(value: unknown, options: LoadOptions): unknown {
  const isSettings = typeof value === 'object' && value !== null && !Array.isArray(value);
  return options.repository === undefined || !isSettings
    ? value
    : { ...value, repository: options.repository };
}

/** `sources:` with nothing after it means what leaving it out means. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value) || typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== null)
      .map(([name, item]) => [name, withoutEmpty(item)]),
  );
}

interface MissingVariables {
  readonly ofKey: readonly string[];
  /** By source: reading the repository needs no source, so they matter only when that one is opened. */
  readonly ofSources: ReadonlyMap<string, readonly Mistake[]>;
}

function noteMissing(document: ConfigDocument | null, mistakes: Mistake[]): MissingVariables {
  const ofKey: string[] = [];
  const ofSources = new Map<string, Mistake[]>();
  for (const { name, path, position } of document?.missing ?? []) {
    const [section, source, setting] = path;
    const mistake = {
      message: `${pathKey(path)} needs the environment variable ${name}, which is not set (write \${${name}:-default} to allow that)`,
      position,
    };
    if (pathKey(path) === 'key.passphrase') ofKey.push(name);
    else if (section === 'sources' && setting !== undefined && setting !== 'kind') {
      ofSources.set(String(source), [...(ofSources.get(String(source)) ?? []), mistake]);
    } else mistakes.push(mistake);
  }
  return { ofKey, ofSources };
}

function isSamePlace(a: Position | null, b: Position | null): boolean {
  return a !== null && b !== null && a.line === b.line && a.column === b.column;
}

function rawSources(input: unknown): Record<string, unknown> {
  if (typeof input !== 'object' || input === null || !('sources' in input)) return {};
  const { sources } = input;
  return typeof sources === 'object' && sources !== null && !Array.isArray(sources) ? { ...sources } : {};
}

function checkSource(
  name: string,
  raw: unknown,
  kinds: LoadOptions['kinds'],
  document: ConfigDocument | null,
  mistakes: Mistake[],
): SourceConfiguration | null {
  // What is no mapping with a kind was already refused by the schema of the whole.
  if (typeof raw !== 'object' || raw === null || !('kind' in raw) || typeof raw.kind !== 'string')
    return null;
  const { kind, ...settings } = raw;
  const known = Object.keys(kinds);
  const schema = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
  if (schema === undefined) {
    const hint = nearest(kind, known);
    mistakes.push({
      message: `sources.${name}.kind: this version knows no kind ${kind}${hint === null ? '' : ` (did you mean ${hint}?)`}; it knows ${known.join(', ')}`,
      position: document?.position(['sources', name, 'kind']) ?? null,
    });
    return null;
  }
  const strict = schema instanceof z.ZodObject ? schema.strict() : schema;
  const parsed = parse(strict, settings, ['sources', name], document, mistakes);
  return parsed === null ? null : { name, kind, settings: parsed };
}

function parse<T extends z.ZodType>(
  schema: T,
  input: unknown,
  at: readonly string[],
  document: ConfigDocument | null,
  mistakes: Mistake[],
): z.output<T> | null {
  let result = schema.safeParse(input);
  if (!result.success && document !== null) {
    // Variables are text; where a number or a switch is asked for, their text is read as one.
    const converted = convertInterpolated(input, result.error.issues, at, document);
    if (converted !== null) result = schema.safeParse(converted);
  }
  if (result.success) return result.data;
  for (const issue of flatten(result.error.issues)) {
    mistakes.push(...describe(issue, schema, at, document, input));
  }
  return null;
}

/** A union's issue hides what is wrong in the alternative that was meant: the one that fits best speaks. */
function flatten(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue[] {
  return issues.flatMap((issue): z.core.$ZodIssue[] => {
    if (issue.code !== 'invalid_union' || issue.errors.length === 0) return [issue];
    const meant = issue.errors.find((errors) =>
      errors.every((inner) => !(inner.code === 'invalid_type' && inner.path.length === 0)),
    );
    if (meant === undefined) return [issue];
    return flatten(meant.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })));
  });
}

function describe(
  issue: z.core.$ZodIssue,
  schema: z.ZodType,
  at: readonly string[],
  document: ConfigDocument | null,
  input: unknown,
): Mistake[] {
  const path = [...at, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const allowed = allowedNames(schema, issue.path) ?? [];
    return issue.keys.map((name) => {
      const hint = nearest(name, allowed);
      const help = hint === null ? `; known here: ${allowed.join(', ')}` : ` (did you mean ${hint}?)`;
      return {
        message: `${pathKey([...path, name])}: no such setting${help}`,
        position: document?.namePosition(path, name) ?? null,
      };
    });
  }
  const position = document?.position(path) ?? null;
  const label = path.length === 0 ? 'the configuration' : pathKey(path);
  if (issue.code === 'invalid_key') {
    const reason = issue.issues[0]?.message ?? issue.message;
    const name = path.at(-1);
    return [
      {
        message: `${label}: the name ${reason}`,
        position: document?.namePosition(path.slice(0, -1), String(name)) ?? null,
      },
    ];
  }
  if (issue.path.length > 0 && valueAt(input, issue.path) === undefined) {
    return [{ message: `${label} is missing`, position }];
  }
  if (issue.code === 'invalid_union') {
    const expected = issue.errors
      .flat()
      .flatMap((inner) => (inner.code === 'invalid_type' ? [inner.expected] : []));
    if (expected.length > 0)
      return [
        { message: `${label} must be ${[...new Set(expected.map(kindInWords))].join(' or ')}`, position },
      ];
  }
  return [{ message: `${label}${inWords(issue)}`, position }];
}

/** What follows the name of the setting. A schema's own message stays; those that zod makes up are put into words. */
function inWords(issue: z.core.$ZodIssue): string {
  const own = !/^(Too (big|small)|Invalid )/.test(issue.message);
  if (own) return `: ${issue.message}`;
  switch (issue.code) {
    case 'invalid_type':
      return ` must be ${kindInWords(issue.expected)}`;
    case 'invalid_value':
      return ` must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'too_big':
      return ` must ${limit('at most', Number(issue.maximum), issue.origin)}`;
    case 'too_small':
      return ` must ${limit('at least', Number(issue.minimum), issue.origin)}`;
    default:
      return ' is not a value that this setting takes';
  }
}

function limit(how: 'at most' | 'at least', bound: number, origin: string): string {
  const things = { string: 'characters', array: 'items' }[origin];
  if (things === undefined) return `be ${how} ${bound}`;
  return `have ${how} ${bound} ${bound === 1 ? things.slice(0, -1) : things}`;
}

const kinds: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'settings (name: value)',
  record: 'settings (name: value)',
};

const kindInWords = (expected: string): string => kinds[expected] ?? expected;

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value: unknown = input;
  for (const step of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Reflect.get(value, step);
  }
  return value;
}

function convertInterpolated(
  input: unknown,
  issues: readonly z.core.$ZodIssue[],
  at: readonly string[],
  document: ConfigDocument,
): unknown {
  let changed = false;
  const copy: unknown = structuredClone(input);
  for (const issue of flatten(issues)) {
    if (issue.code !== 'invalid_type' || !document.interpolated.has(pathKey([...at, ...issue.path])))
      continue;
    const value = valueAt(copy, issue.path);
    const parent = valueAt(copy, issue.path.slice(0, -1));
    const read = typeof value === 'string' ? readAs(issue.expected, value) : undefined;
    const last = issue.path.at(-1);
    if (read === undefined || last === undefined || typeof parent !== 'object' || parent === null) continue;
    Reflect.set(parent, last, read);
    changed = true;
  }
  return changed ? copy : null;
}

function readAs(expected: string, text: string): number | boolean | undefined {
  if ((expected === 'number' || expected === 'int') && /^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  if (expected === 'boolean' && /^(true|false)$/.test(text)) return text === 'true';
  return undefined;
}

function refuse(mistakes: readonly Mistake[], source: ConfigSource, secrets: Secrets): never {
  throw invalidConfiguration(linesOf(mistakes, source, secrets));
}

function linesOf(mistakes: readonly Mistake[], source: ConfigSource, secrets: Secrets): string[] {
  const place = source.label ?? 'the environment';
  return [
    ...new Set(
      [...mistakes].sort(byPosition).map(({ message, position }) => {
        const where = position === null ? place : `${place}:${position.line}:${position.column}`;
        return secrets.redact(`${where}: ${source.label === null ? inWordsOfVariables(message) : message}`);
      }),
    ),
  ];
}

/** `config.invalid` with these mistakes, each a line that begins with its place. */
export function invalidConfiguration(lines: readonly string[]): HoldfastError {
  const message =
    lines.length === 1
      ? `The configuration has a mistake: ${lines[0]}.`
      : `The configuration has ${lines.length} mistakes:\n  ${lines.join('\n  ')}`;
  return new HoldfastError('config.invalid', message, { details: { mistakes: lines } });
}

/** Without a file nobody wrote `sources.postgres.url`: they set a variable. */
function inWordsOfVariables(message: string): string {
  return message
    .replace(/^sources\.[a-z0-9-]+\.url/, 'DATABASE_URL')
    .replace(/^key\.passphrase/, 'BACKUP_ENCRYPTION_KEY')
    .replace(/^repository/, 'BACKUP_DIR');
}

function byPosition(a: Mistake, b: Mistake): number {
  return (
    (a.position?.line ?? 0) - (b.position?.line ?? 0) || (a.position?.column ?? 0) - (b.position?.column ?? 0)
  );
}

function registerSecrets(value: unknown, secrets: Secrets, name = ''): void {
  if (typeof value === 'string') {
    if (isSecretName(name)) secrets.add(value);
    // Twice: up to the @ that ends the userinfo by the rules, and up to the last one, for who forgot to encode.
    for (const pattern of [
      /^[a-z][a-z0-9+.-]*:\/\/[^\s:/?#@]*:([^/?#]+)@/i,
      /^[a-z][a-z0-9+.-]*:\/\/[^\s:/?#@]*:(.+)@/i,
    ]) {
      const password = pattern.exec(value)?.[1];
      if (password !== undefined) registerPassword(password, secrets);
    }
    const parameter = /[?&](?:ssl)?password=([^&]+)/i.exec(value)?.[1];
    if (parameter !== undefined) registerPassword(parameter, secrets);
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value))
      registerSecrets(item, secrets, Array.isArray(value) ? name : key);
  }
}

function registerPassword(encoded: string, secrets: Secrets): void {
  secrets.add(encoded);
  try {
    secrets.add(decodeURIComponent(encoded));
  } catch (error) {
    // A stray % is no encoding: then what stands there is the password itself.
    if (!(error instanceof URIError)) throw error;
  }
}

const zeroConfigurationVariables: readonly (readonly [RegExp, string])[] = [
  [/^repository$/, 'BACKUP_DIR'],
  [/^key\.passphrase$/, 'BACKUP_ENCRYPTION_KEY'],
  [/^sources\./, 'DATABASE_URL'],
];

function originsOf(input: unknown, source: ConfigSource, options: LoadOptions): Record<string, string> {
  const origins: Record<string, string> = {};
  const document = 'problems' in source.document ? source.document : null;
  const fromVariable = (name: string) => {
    const from = Object.hasOwn(source.variables, name) ? source.variables[name]?.from : undefined;
    return from === undefined || from === 'environment' ? `environment ${name}` : `${from} ${name}`;
  };
  const walk = (value: unknown, path: readonly string[]) => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      for (const [name, item] of Object.entries(value)) walk(item, [...path, name]);
      return;
    }
    const key = pathKey(path);
    if (key === 'repository' && options.repository !== undefined) origins[key] = 'command line';
    else if (document === null) {
      const name = zeroConfigurationVariables.find(([pattern]) => pattern.test(key))?.[1];
      if (name !== undefined) origins[key] = fromVariable(name);
    } else {
      const position = document.position(path);
      const names = document.interpolated.get(key)?.names ?? [];
      const place =
        position === null ? (source.label ?? '') : `${source.label}:${position.line}:${position.column}`;
      origins[key] = [place, ...names.map(fromVariable)].join(', ');
    }
  };
  walk(input, []);
  if (!('state' in origins) && source.variables.HOLDFAST_STATE?.value)
    origins.state = fromVariable('HOLDFAST_STATE');
  return origins;
}
