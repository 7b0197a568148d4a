/** Reads every import under `src/` and refuses those that break the layers, explaining each; refuses cycles too. */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { layers, siblings, storeKinds } from './layers.ts';

export interface Import {
  readonly from: string;
  /** Path below `src/` for our own files, else as written. */
  readonly to: string;
  readonly line: number;
  /** Erased when the program runs. */
  readonly typeOnly: boolean;
  readonly own: boolean;
}

const importPattern =
  /^[ \t]*(?:import|export)(?<type>\s+type)?\b(?:[^'";]*?\bfrom)?\s*'(?<static>[^']+)'|\bimport\(\s*'(?<dynamic>[^']+)'\s*\)|new URL\(\s*'(?<url>\.[^']+\.ts)'/gm;

/** The imports of one file; `from` is its path below `src/`. */
export function importsOf(from: string, source: string): Import[] {
  return [...source.matchAll(importPattern)].map((match) => {
    const { type, static: plain, dynamic, url } = match.groups ?? {};
    const to = plain ?? dynamic ?? url ?? '';
    const own = to.startsWith('.');
    const clause = match[0].slice(0, match[0].lastIndexOf("'"));
    return {
      from,
      to: own ? join(dirname(from), to) : to,
      line: source.slice(0, match.index).split('\n').length,
      typeOnly: plain !== undefined && (type !== undefined || onlyTypes(clause)),
      own,
    };
  });
}

/** `import { type A, type B } from` leaves nothing behind either. */
function onlyTypes(clause: string): boolean {
  const braces = /^[ \t]*(?:import|export)\s*\{(?<names>[^}]*)\}/.exec(clause)?.groups?.names;
  const names = braces
    ?.split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return names !== undefined && names.length > 0 && names.every((name) => name.startsWith('type '));
}

const isTest = (path: string) => /\.(test|suite|fixtures|test-helper)\.ts$/.test(path);

/** Why an import is not allowed; null when it is. `packages`: what the published package depends on. */
export function refusal(item: Import, packages: readonly string[]): string | null {
  // Tests look behind doors on purpose; what they import is not part of the house.
  if (isTest(item.from)) return null;
  if (!item.own) return refuseForeign(item, packages);
  if (item.to.startsWith('..')) return 'what is published may import nothing outside src/';
  if (isTest(item.to)) return 'only tests may import tests, suites and fixtures';
  return refuseLayer(item) ?? refuseSibling(item) ?? refuseStoreKind(item);
}

function refuseForeign({ to }: Import, packages: readonly string[]): string | null {
  if (to.startsWith('node:')) return null;
  const name = to
    .split('/')
    .slice(0, to.startsWith('@') ? 2 : 1)
    .join('/');
  return packages.includes(name)
    ? null
    : `${name} is not among the dependencies that are published (package.json)`;
}

function refuseLayer({ from, to }: Import): string | null {
  const [own = '', other = ''] = [from.split('/')[0], to.split('/')[0]];
  if (own === other) return null;
  const [layer, target] = [layers[own], layers[other]];
  if (layer === undefined || target === undefined)
    return `src/${layer === undefined ? own : other}/ is no layer`;
  if (!layer.uses.includes(other)) {
    const allowed = layer.uses.length === 0 ? 'nothing' : layer.uses.join(', ');
    return `${own} may import ${allowed}, not ${other}: ${layers[own]?.why}`;
  }
  const file = to.slice(other.length + 1);
  if (target.doors === null ? other === 'core' || !file.includes('/') : target.doors.includes(file))
    return null;
  const doors = target.doors === null ? `the files directly in ${other}/` : target.doors.join(', ');
  return `the doors of ${other} are ${doors}; what is behind them may change without asking`;
}

function refuseSibling({ from, to }: Import): string | null {
  for (const { folder, openers } of siblings) {
    const [fromParts, toParts] = [from.split('/'), to.split('/')];
    if (fromParts[0] !== folder || toParts[0] !== folder || toParts.length < 3) continue;
    if (fromParts.length < 3 && !openers.includes(fromParts[1] ?? '')) {
      return `only ${folder}/${openers.join(' and ')} import the kinds; everything else uses the contract`;
    }
    if (fromParts.length >= 3 && fromParts[1] !== toParts[1]) {
      return `${fromParts[1]} and ${toParts[1]} are siblings and never import each other; share through a lower layer`;
    }
  }
  return null;
}

function refuseStoreKind({ from, to }: Import): string | null {
  const kindOf = (path: string) =>
    storeKinds.find((kind) => new RegExp(`^storage/${kind}(-[^/]*)?\\.ts$`).test(path)) ?? null;
  const [own, other] = [kindOf(from), kindOf(to)];
  if (other === null || own === other || from === 'storage/open.ts') return null;
  return own === null
    ? `only storage/open.ts imports the kinds of stores; everything else uses the contract`
    : `${own} and ${other} are two stores, which never import each other`;
}

/** Every cycle of imports that remain when the program runs, each once, as a path that ends where it began. */
export function findCycles(imports: readonly Import[]): string[][] {
  const graph = new Map<string, string[]>();
  for (const { from, to, own, typeOnly } of imports) {
    if (own && !typeOnly) graph.set(from, [...(graph.get(from) ?? []), to]);
  }
  const cycles: string[][] = [];
  const state = new Map<string, 'open' | 'closed'>();
  const visit = (file: string, path: readonly string[]) => {
    state.set(file, 'open');
    for (const next of graph.get(file) ?? []) {
      if (state.get(next) === 'open') cycles.push([...path.slice(path.indexOf(next)), next]);
      else if (!state.has(next)) visit(next, [...path, next]);
    }
    state.set(file, 'closed');
  };
  for (const file of graph.keys()) if (!state.has(file)) visit(file, [file]);
  return cycles;
}

function publishedPackages(root: string): string[] {
  const manifest: unknown = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  if (typeof manifest !== 'object' || manifest === null) return [];
  const sections = ['dependencies', 'optionalDependencies'].map((name) => Reflect.get(manifest, name));
  return sections.flatMap((section) => Object.keys(section ?? {}));
}

function main(): void {
  const root = join(import.meta.dirname, '..');
  const packages = publishedPackages(root);
  const files = globSync('src/**/*.ts', { cwd: root }).map((path) => relative('src', path));
  const imports = files.flatMap((file) => importsOf(file, readFileSync(join(root, 'src', file), 'utf8')));
  const problems = imports.flatMap((item) => {
    const why = refusal(item, packages);
    return why === null
      ? []
      : [`src/${item.from}:${item.line} imports ${item.own ? `src/${item.to}` : item.to}\n  ${why}`];
  });
  for (const cycle of findCycles(imports)) {
    problems.push(
      `These files import each other in a circle; move what they share into a file of its own:\n  ${cycle.join('\n  → ')}`,
    );
  }
  for (const file of files) {
    if (!/^([a-z0-9-]+\/)*[a-z0-9-]+(\.(it|property|test|suite|fixtures|test-helper))*\.ts$/.test(file)) {
      problems.push(`src/${file}\n  files are named in kebab-case for their main export`);
    }
  }
  for (const problem of problems) console.log(problem);
  console.log(`${files.length} files, ${imports.length} imports, ${problems.length} refused`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main();
