/** Turns a URL, a keyword string, an object and the environment into libpq's keywords, all as text. */
import { HoldfastError } from '../../core/errors.ts';

const supported = [
  'host',
  'port',
  'user',
  'password',
  'dbname',
  'passfile',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'channel_binding',
  'connect_timeout',
  'application_name',
  'fallback_application_name',
  'keepalives',
  'keepalives_idle',
  'keepalives_interval',
  'keepalives_count',
  'options',
  // Not of libpq: how long a kept connection lives.
  'idle_timeout',
  'max_age',
] as const;

type Keyword = (typeof supported)[number];
export type ConnectionKeywords = { readonly [K in Keyword]?: string | undefined };

/** Known to libpq; harmless with these values, refused with others. */
const onlyWith: Readonly<Record<string, readonly string[]>> = {
  client_encoding: ['UTF8', 'utf8', 'UTF-8', 'utf-8'],
  gssencmode: ['disable', 'prefer'],
  target_session_attrs: ['any'],
  load_balance_hosts: ['disable'],
  sslcompression: ['0'],
  sslsni: ['1'],
  sslnegotiation: ['postgres'],
  ssl_min_protocol_version: ['TLSv1.2'],
  ssl_max_protocol_version: [''],
};

const refused = [
  'hostaddr',
  'gssdelegation',
  'gsslib',
  'krbsrvname',
  'max_protocol_version',
  'min_protocol_version',
  'oauth_client_id',
  'oauth_client_secret',
  'oauth_issuer',
  'oauth_scope',
  'replication',
  'require_auth',
  'requirepeer',
  'requiressl',
  'service',
  'servicefile',
  'sslcertmode',
  'sslcrl',
  'sslcrldir',
  'sslkeylogfile',
  'sslpassword',
  'tcp_user_timeout',
];

const variables: Readonly<Record<string, string>> = {
  PGHOST: 'host',
  PGPORT: 'port',
  PGUSER: 'user',
  PGPASSWORD: 'password',
  PGDATABASE: 'dbname',
  PGPASSFILE: 'passfile',
  PGSSLMODE: 'sslmode',
  PGSSLROOTCERT: 'sslrootcert',
  PGSSLCERT: 'sslcert',
  PGSSLKEY: 'sslkey',
  PGCHANNELBINDING: 'channel_binding',
  PGCONNECT_TIMEOUT: 'connect_timeout',
  PGAPPNAME: 'application_name',
  PGOPTIONS: 'options',
  PGCLIENTENCODING: 'client_encoding',
  PGGSSENCMODE: 'gssencmode',
  PGTARGETSESSIONATTRS: 'target_session_attrs',
  PGLOADBALANCEHOSTS: 'load_balance_hosts',
  PGSSLCOMPRESSION: 'sslcompression',
  PGSSLSNI: 'sslsni',
  PGSSLNEGOTIATION: 'sslnegotiation',
  PGSSLMINPROTOCOLVERSION: 'ssl_min_protocol_version',
  PGSSLMAXPROTOCOLVERSION: 'ssl_max_protocol_version',
  PGHOSTADDR: 'hostaddr',
  PGSERVICE: 'service',
  PGREQUIREAUTH: 'require_auth',
  PGREQUIREPEER: 'requirepeer',
  PGREQUIRESSL: 'requiressl',
  PGSSLCRL: 'sslcrl',
  PGSSLCRLDIR: 'sslcrldir',
  PGSSLCERTMODE: 'sslcertmode',
};

const aliases: Readonly<Record<string, string>> = {
  database: 'dbname',
  username: 'user',
  ssl_mode: 'sslmode',
  ssl_root_cert: 'sslrootcert',
  ssl_cert: 'sslcert',
  ssl_key: 'sslkey',
  keep_alive: 'keepalives',
  keepalive: 'keepalives',
  keep_alive_idle: 'keepalives_idle',
  keep_alive_interval: 'keepalives_interval',
  keep_alive_count: 'keepalives_count',
};

/** Every keyword with a value, the environment's where `input` says nothing. Throws `postgres.invalid-address`. */
export function readKeywords(
  input: string | Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
): ConnectionKeywords {
  const result: Partial<Record<Keyword, string>> = {};
  for (const [variable, name] of Object.entries(variables)) {
    const value = env[variable];
    if (value !== undefined && value !== '') accept(result, name, value, variable);
  }
  for (const [name, value] of typeof input === 'string' ? readText(input) : readObject(input)) {
    accept(result, name, value, name);
  }
  return result;
}

function accept(result: Partial<Record<Keyword, string>>, given: string, value: string, said: string): void {
  const name = aliases[given] ?? given;
  const known = supported.find((one) => one === name);
  if (known !== undefined) {
    // libpq: an empty value is no value.
    if (value !== '') result[known] = value;
    return;
  }
  if (refused.includes(name)) {
    throw invalid(
      `${said} is not supported`,
      `Remove ${said}; Holdfast would have to ignore it, and it may matter.`,
    );
  }
  const harmless = onlyWith[name];
  if (harmless === undefined) {
    throw invalid(`"${said}" is not a setting of a PostgreSQL connection`, 'Check its spelling.');
  }
  if (value !== '' && !harmless.includes(value)) {
    throw invalid(`${said} is supported only as "${harmless[0]}"`, `Remove ${said}.`);
  }
}

function readObject(input: Readonly<Record<string, unknown>>): [string, string][] {
  const found: [string, string][] = [];
  for (const [key, value] of Object.entries(input)) {
    if (value === undefined || value === null) continue;
    const name = key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (name === 'url') {
      if (typeof value !== 'string')
        throw invalid('url is not text', 'Write it as postgres://user@host:5432/database.');
      found.unshift(...readText(value));
    } else if (typeof value === 'string' || typeof value === 'number') {
      found.push([name, String(value)]);
    } else if (typeof value === 'boolean') {
      found.push([name, value ? '1' : '0']);
    } else {
      throw invalid(`${key} is neither text nor a number`, 'Correct it.');
    }
  }
  return found;
}

function readText(text: string): [string, string][] {
  return /^postgres(ql)?:\/\//.test(text) ? readUrl(text) : readKeywordString(text);
}

const urlForm = /^postgres(?:ql)?:\/\/(?:([^@/?#]*)@)?([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;

function readUrl(url: string): [string, string][] {
  const match = urlForm.exec(url);
  if (!match) {
    throw invalid(
      'the URL is malformed',
      'Write postgres://user:password@host:5432/database, with /, @, : , ? and # in the password percent-encoded.',
    );
  }
  const [, credentials, place = '', database, query] = match;
  const found: [string, string][] = [];
  if (credentials !== undefined) {
    const colon = credentials.indexOf(':');
    found.push(['user', decode(colon === -1 ? credentials : credentials.slice(0, colon))]);
    if (colon !== -1) found.push(['password', decode(credentials.slice(colon + 1))]);
  }
  const hostForm = /^(\[[0-9A-Fa-f:.%]+\]|[^:]*)(?::(\d*))?$/.exec(place);
  if (place.includes(','))
    throw invalid('it names several hosts, and Holdfast takes one', 'Name the one server to back up.');
  if (!hostForm)
    throw invalid('the URL has no readable host and port', 'Write postgres://user@host:5432/database.');
  found.push(['host', decode(hostForm[1]!.replace(/^\[|\]$/g, ''))], ['port', hostForm[2] ?? '']);
  found.push(['dbname', decode(database ?? '')]);
  for (const pair of (query ?? '').split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    if (equals === -1) throw invalid('a parameter of the URL has no value', 'Write ?name=value&name=value.');
    const name = decode(pair.slice(0, equals));
    const value = decode(pair.slice(equals + 1));
    // libpq keeps this for clients of JDBC's habit.
    if (name === 'ssl' && value === 'true') found.push(['sslmode', 'require']);
    else found.push([name, value]);
  }
  return found;
}

function readKeywordString(text: string): [string, string][] {
  const found: [string, string][] = [];
  const form = /\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|))(?=\s|$)/y;
  const end = text.trimEnd().length;
  while (form.lastIndex < end) {
    const match = form.exec(text);
    if (!match) {
      throw invalid(
        'it is neither a URL nor a list of name=value',
        "Write postgres://user@host:5432/database, or host=… port=… user=… dbname=… with values in '…' where they hold blanks.",
      );
    }
    found.push([match[1]!, (match[2] ?? match[3] ?? '').replaceAll(/\\(.)/gs, '$1')]);
  }
  return found;
}

function decode(text: string): string {
  try {
    const decoded = decodeURIComponent(text);
    if (decoded.includes('\0')) throw new URIError('zero byte');
    return decoded;
  } catch {
    // Neither the text nor the cause goes on: it may be the password.
    throw invalid(
      'the URL has a percent sign that begins no character',
      'Write a percent sign itself as %25.',
    );
  }
}

function invalid(problem: string, next: string): HoldfastError {
  return new HoldfastError(
    'postgres.invalid-address',
    `The address of the PostgreSQL server cannot be used: ${problem}.`,
    {
      next,
    },
  );
}
