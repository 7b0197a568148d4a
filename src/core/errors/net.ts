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
  'net.tls': {
    exit: 7,
    summary: 'An encrypted connection could not be made.',
    explanation:
      'The TLS handshake failed, or the certificate of the other side is not the one that the settings ask for. Nothing was sent over the connection.',
    next: 'Check the certificate of the server and the TLS settings of the address.',
  },
  'net.authentication': {
    exit: 7,
    summary: 'The other side could not prove who it is.',
    explanation:
      'With SCRAM both sides prove that they know the password. The answer of the server was malformed or did not prove it: it may be an impostor, or something between changed the messages.',
    next: 'Check that the address is that of your server, and use TLS with a checked certificate (sslmode=verify-full).',
  },
});
