/** The effective configuration as people and scripts may see it: secrets masked. */
import { Document, isMap, isScalar, Scalar, YAMLMap } from 'yaml';
import type { Configuration } from './configuration.ts';
import { isSecretName, maskCredentials } from './redaction.ts';

/** The effective configuration as a plain value in the shape of `holdfast.yaml`, secrets masked; for `--json`. */
export function maskedConfiguration(configuration: Configuration): Record<string, unknown> {
  const { repository, key, state, timezone, environment, log, sources } = configuration;
  const { missingVariables, ...keySettings } = key;
  return masked({
    repository,
    key: {
      ...keySettings,
      ...(missingVariables === undefined
        ? {}
        : { passphrase: missingVariables.map((name) => `\${${name}}`).join('') }),
    },
    state,
    timezone,
    ...(environment === null ? {} : { environment }),
    log,
    sources: Object.fromEntries(
      Object.values(sources).map(({ name, kind, settings }) => [
        name,
        { kind, ...(typeof settings === 'object' && settings !== null ? settings : {}) },
      ]),
    ),
  }) as Record<string, unknown>;
}

/** The effective configuration as YAML, each value with where it came from as a comment; secrets masked. */
export function describeConfiguration(configuration: Configuration): string {
  const document = new Document(maskedConfiguration(configuration));
  const comment = (node: unknown, path: readonly string[]) => {
    if (isMap(node)) {
      for (const pair of node.items) {
        comment(pair.value, [...path, isScalar(pair.key) ? String(pair.key.value) : String(pair.key)]);
      }
      return;
    }
    if (!isScalar(node) && !(node instanceof YAMLMap)) return;
    if (node instanceof Scalar) node.comment = ` ${configuration.origins[path.join('.')] ?? 'default'}`;
  };
  comment(document.contents, []);
  document.commentBefore = ` ${configuration.file ?? 'No configuration file: from the environment.'}`;
  return document.toString({ lineWidth: 0 });
}

function masked(value: unknown, name = ''): unknown {
  if (Array.isArray(value)) return value.map((item) => masked(item, name));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => [key, masked(item, key)]),
    );
  }
  if (typeof value === 'bigint') return value.toString();
  if (value !== '' && value !== null && isSecretName(name) && typeof value !== 'boolean') {
    return typeof value === 'string' && /^(\$\{\w+\})+$/.test(value) ? value : '***';
  }
  return typeof value === 'string' ? maskCredentials(value) : value;
}
