/** The key kit: one printable page with what must be kept outside the repository and how to use it. */
import { armored, type WrappedKey } from './keys.ts';

export interface KeyKit {
  /** Suggested name of the file, without a folder. */
  readonly fileName: string;
  /** The page. Holds wrapped secrets only, and a passphrase only when it was generated and asked for. */
  readonly text: string;
}

export interface KeyKitFacts {
  readonly repository: string;
  readonly address: string;
  readonly adminKey: string;
  readonly created: number;
  readonly recipients: readonly string[];
  readonly keys: readonly WrappedKey[];
  /** Only when Holdfast made it up: whoever has this page then has everything. */
  readonly generatedPassphrase?: string;
}

export function renderKeyKit(facts: KeyKitFacts): KeyKit {
  const passphrase =
    facts.generatedPassphrase === undefined
      ? 'The passphrase (or the age identity) that the repository was made with. It is NOT on this page.'
      : `This passphrase, made by Holdfast:\n\n    ${facts.generatedPassphrase}\n\n  Whoever holds this page can read every backup.`;
  const keys = facts.keys.map(
    (key) =>
      `${key.name}  (${key.opens === 'data' ? 'opens the backups' : 'administers the repository'})\n\n${armored(key.content).trim()}\n`,
  );
  const text = `HOLDFAST KEY KIT
================

Keep this page outside the machines that are backed up, in two places. Without it, or without what
opens it, the backups cannot be read by anyone.

  Repository   ${facts.repository}
  Address      ${facts.address}
  Created      ${new Date(facts.created).toISOString()}
  Admin key    ${facts.adminKey}
  Sealed to    ${facts.recipients.join('\n               ')}

What opens it

  ${passphrase}

To get everything back on an empty machine

  1. Install Holdfast and make the repository's folder or bucket reachable.
  2. Put the passphrase into a file that only you can read, e.g. passphrase.txt, and write holdfast.yaml:

       repository: ${facts.address}
       key: { passphraseFile: passphrase.txt }

  3. holdfast list                          shows what there is
     holdfast restore SOURCE --to FOLDER    brings the newest state back
     holdfast restore SOURCE --at TIME …    brings an earlier moment back

The wrapped secrets (also kept in the repository; the age tool opens them: age -d FILE)

${keys.join('\n')}`;
  return { fileName: `holdfast-key-kit-${facts.repository}.txt`, text };
}
