/** The shape of `holdfast.yaml` but for the settings of the source kinds, which each kind brings itself. */
import { z } from 'zod';
import { isTimeZone } from './time.ts';

export const sourceNamePattern = /^[a-z0-9-]{1,40}$/;

const text = z.string().min(1, 'must not be empty');

const keySettings = z
  .strictObject({
    passphrase: z
      .string()
      .optional()
      .describe(
        'The passphrase itself; write it as `${NAME}` so that it comes from the environment. Empty means none.',
      ),
    passphraseFile: text
      .optional()
      .describe('A file that holds the passphrase; one line break at its end is dropped.'),
    passphraseCommand: z
      .array(text)
      .min(1)
      .optional()
      .describe('A program and its arguments that print the passphrase; run without a shell, within 60 s.'),
    identityFile: text.optional().describe('A file that holds an age identity (`AGE-SECRET-KEY-1…`).'),
    recipients: z
      .array(z.string().regex(/^age1[0-9a-z]+$/, 'must be an age recipient: age1…'))
      .optional()
      .describe('Age recipients (`age1…`) to whom `init` wraps the keys of a new repository.'),
  })
  .refine(
    (key) =>
      [key.passphrase, key.passphraseFile, key.passphraseCommand].filter((way) => way !== undefined).length <=
      1,
    'only one of passphrase, passphraseFile and passphraseCommand may be given',
  );

/** Every top-level setting, with its explanation and default; `docs/configuration.md` is generated from it. */
export const configurationSchema = z.strictObject({
  repository: z
    .union([text, z.strictObject({ address: text.describe('The address of the store.') })])
    .describe(
      'Where the repository is: the path of a folder. A relative path counts from the folder of this file.',
    ),
  key: keySettings
    .default({})
    .describe(
      'Where the secret comes from that opens the repository. Needed only to create a repository, restore, verify contents and change keys; backing up needs none.',
    ),
  state: text
    .optional()
    .describe(
      'Folder for what this host keeps: its signing key, cache and spool. Default: `$HOLDFAST_STATE`, else `/var/lib/holdfast` for root, else `$XDG_STATE_HOME/holdfast` (`~/.local/state/holdfast`).',
    ),
  timezone: z
    .string()
    .refine(isTimeZone, 'is no time zone; write a name such as Europe/Berlin, or UTC')
    .default('UTC')
    .describe('How times without a zone are read, as an IANA name.'),
  environment: text
    .optional()
    .describe('What this stack is to people, e.g. `production`; shown where it prevents a mix-up.'),
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error'])
        .default('info')
        .describe('The least important level that is written.'),
      format: z
        .enum(['text', 'json'])
        .default('text')
        .describe('Lines for people, or one JSON object a line.'),
    })
    .prefault({})
    .describe('The log, on standard error.'),
  sources: z
    .record(
      z.string().regex(sourceNamePattern, 'must be 1 to 40 of a-z, 0-9 and -'),
      z.looseObject({ kind: z.string().describe('The kind of the source, e.g. `postgres`.') }),
    )
    .default({})
    .describe(
      'What is backed up, by name. A name is 1 to 40 of `a`–`z`, `0`–`9` and `-`. The other settings depend on the kind.',
    ),
});

/** The setting names that are allowed at a place in a schema; null where any are (or where it holds no settings). */
export function allowedNames(
  schema: z.core.$ZodType,
  path: readonly PropertyKey[],
): readonly string[] | null {
  const [step, ...rest] = path;
  const inner = bare(schema);
  if (inner instanceof z.ZodUnion) {
    const found = inner.options.map((option) => allowedNames(option, path)).filter((names) => names !== null);
    return found.length === 0 ? null : found.flat();
  }
  if (inner instanceof z.ZodRecord) return step === undefined ? null : allowedNames(inner.valueType, rest);
  if (inner instanceof z.ZodArray) return step === undefined ? null : allowedNames(inner.element, rest);
  if (!(inner instanceof z.ZodObject)) return null;
  if (step === undefined) return Object.keys(inner.shape);
  const next: z.core.$ZodType | undefined = inner.shape[String(step)];
  return next === undefined ? null : allowedNames(next, rest);
}

/** The schema below `optional`, `default` and their like. */
export function bare(schema: z.core.$ZodType): z.core.$ZodType {
  let inner = schema;
  for (;;) {
    if (
      inner instanceof z.ZodOptional ||
      inner instanceof z.ZodNullable ||
      inner instanceof z.ZodDefault ||
      inner instanceof z.ZodPrefault ||
      inner instanceof z.ZodReadonly
    ) {
      inner = inner.unwrap();
    } else if (inner instanceof z.ZodPipe) {
      inner = inner.in instanceof z.ZodTransform ? inner.out : inner.in;
    } else return inner;
  }
}
