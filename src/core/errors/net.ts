import { defineErrors } from './define.ts';

export const netErrors = defineErrors({
  'net.unreachable': {
    exit: 7,
    summary: 'A connection could not be made or was lost.',
    explanation:
      'The address did not answer, refused, or closed the connection. What had been acknowledged before stays safe.',
    next: 'Check that the server runs and that host and port are right, then run the command again.',
  },
  'net.timeout': {
    exit: 7,
    summary: 'An answer did not come in time.',
    explanation:
      'Every wait has a deadline, so that nothing hangs for ever. The deadline named in the message ran out.',
    next: 'Check the network and the load of the server, then run the command again.',
  },
});
