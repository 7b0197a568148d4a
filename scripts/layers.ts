/** The layers of the house, and what each may import. `check-layers.ts` holds every file against this. */

export interface Layer {
  /** Layers whose doors may be used. */
  readonly uses: readonly string[];
  /** Files that other layers may import, relative to the layer's folder. Null: all of them directly in it. */
  readonly doors: readonly string[] | null;
  readonly why: string;
}

export const layers: Readonly<Record<string, Layer>> = {
  core: { uses: [], doors: null, why: 'everything stands on core, so core stands on nothing of ours' },
  net: { uses: ['core'], doors: null, why: 'sockets know no databases and no repository' },
  storage: {
    uses: ['core'],
    doors: ['store.ts', 'open.ts'],
    why: 'a store keeps bytes by name; what they mean is the business of the repository',
  },
  repository: {
    uses: ['core', 'storage'],
    doors: ['repository.ts', 'pipeline.ts', 'contract.ts', 'local-state.ts', 'log-archive.ts'],
    why: 'the format must be readable without any database or service',
  },
  sources: {
    uses: ['core', 'net', 'repository'],
    doors: ['source.ts', 'open.ts', 'archive.ts'],
    why: 'a source hands over snapshots and logs through the contract and knows neither stores nor commands',
  },
  operations: {
    uses: ['core', 'storage', 'repository', 'sources'],
    doors: null,
    why: 'operations work the same under a command, the service and the tests',
  },
  service: {
    uses: ['core', 'operations'],
    doors: ['service.ts'],
    why: 'the service calls the same operations as the commands do',
  },
  cli: { uses: ['core', 'operations', 'service'], doors: [], why: 'nothing is built on the command line' },
};

/** Folders whose direct children are siblings that never import each other, and the files that import them. */
export const siblings: readonly { readonly folder: string; readonly openers: readonly string[] }[] = [
  { folder: 'sources', openers: ['open.ts', 'archive.ts'] },
];

/** Kinds of stores are files by prefix (`local.ts`, `local-file.ts`); only `open.ts` imports more than its own. */
export const storeKinds: readonly string[] = ['local', 's3', 'memory'];
