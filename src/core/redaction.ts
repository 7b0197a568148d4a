/** Keeps secrets out of everything that is printed or logged. */

const mask = '***';

/**
 * Values that must never be shown. Add each secret as soon as it is known; pass every text that leaves the
 * process (log records, error messages, captured diagnostics) through `redact`.
 */
export class Secrets {
  #pattern: RegExp | null = null;
  readonly #forms = new Set<string>();

  /** Registers a secret, in the forms in which it may show up: as is, percent-encoded, escaped, line by line. */
  add(value: string): void {
    // Blanking a word of our own messages would hide nothing, show what the password is, and make every message
    // unreadable; in addresses and settings it is masked by its place.
    if (value === '' || ownWords.has(value.toLowerCase())) return;
    for (const line of value.split(/\r?\n/)) {
      if (line.trim() === '') continue;
      this.#forms.add(line);
      this.#forms.add(JSON.stringify(line).slice(1, -1));
      if (line.isWellFormed()) this.#forms.add(encodeURIComponent(line));
    }
    this.#pattern = null;
  }

  /** The text with registered values and passwords in addresses replaced by `***`. */
  redact(text: string): string {
    const hidden = maskCredentials(text);
    if (this.#forms.size === 0) return hidden;
    this.#pattern ??= patternOf(this.#forms);
    return hidden.replace(this.#pattern, mask);
  }
}

const ownWords = new Set(
  (
    'postgres postgresql holdfast password passphrase secret backup backups restore restored database server source ' +
    'snapshot repository store root admin user test true false null none'
  ).split(' '),
);

function patternOf(forms: Iterable<string>): RegExp {
  // Longest first, so that a secret that contains another is hidden whole.
  const sources = [...forms].sort((a, b) => b.length - a.length).map(formPattern);
  return new RegExp(sources.join('|'), 'g');
}

function formPattern(form: string): string {
  const literal = form.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
  // A very short password inside other words would blank half of every message and so show what it is.
  return form.length >= 4 ? literal : `(?<![A-Za-z0-9])${literal}(?![A-Za-z0-9])`;
}

/** Masks passwords in addresses (`scheme://user:password@host`) and in `password=…` settings, registered or not. */
export function maskCredentials(text: string): string {
  return (
    text
      // Up to the last @: people forget to encode an @ or a / in a password, and hiding too much does no harm.
      .replace(/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/?#@'"]*):[^\s'"]+@/gi, `$1:${mask}@`)
      .replace(
        /\b(password|passwd|passphrase|sslpassword)(\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'"]+)/gi,
        `$1$2${mask}`,
      )
  );
}

const secretWord = /(password|passwd|pwd|passphrase|secret|token|credential|authorization)s?$/;

/** True for field names whose value must not be shown: password, passphrase, secret, token, key and compounds. */
export function isSecretName(name: string): boolean {
  // The shell's working folder, not a password.
  if (name === 'PWD' || name === 'OLDPWD') return false;
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/);
  // A file or command that yields the secret is not the secret, and is what a person must see to mend it.
  if (['file', 'command', 'id', 'count'].includes(words.at(-1) ?? '')) return false;
  if (words.some((word) => secretWord.test(word))) return true;
  const last = words.at(-1);
  return (last === 'key' || last === 'keys') && !words.includes('public');
}
