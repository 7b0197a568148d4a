/** The URL of a sibling module to run as a worker: `.ts` in a checkout, `.js` in the built package. */
export function workerUrl(name: string): URL {
  return new URL(`./${name}${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);
}
