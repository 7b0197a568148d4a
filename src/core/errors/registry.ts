/** Every error code of Holdfast, one file an area. `docs/errors.md` is generated from here. */
import { commandErrors } from './command.ts';
import { configErrors } from './config.ts';
import { netErrors } from './net.ts';
import { postgresErrors } from './postgres.ts';
import { recoveryErrors } from './recovery.ts';
import { repositoryErrors } from './repository.ts';
import { storageErrors } from './storage.ts';
import { systemErrors } from './system.ts';

export const errorRegistry = {
  ...commandErrors,
  ...configErrors,
  ...netErrors,
  ...postgresErrors,
  ...recoveryErrors,
  ...repositoryErrors,
  ...storageErrors,
  ...systemErrors,
} as const;

export type ErrorCode = keyof typeof errorRegistry;
