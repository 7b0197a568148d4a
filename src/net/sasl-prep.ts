/** SASLprep (RFC 4013), which SCRAM applies to passwords so that two ways to type a letter are one. */

/** RFC 3454 table C.1.2: other spaces become the plain one. */
const otherSpaces = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;

/** RFC 3454 table B.1: characters that mean nothing and go. */
const nothing = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|\u200c|\u200d|\u2060|[\ufe00-\ufe0f]|\ufeff/gu;

/** RFC 3454 tables C.2 to C.9: control, private use, non-characters, surrogates, display and tagging characters. */
const prohibited = new RegExp(
  '[\\u0000-\\u001f\\u007f-\\u009f\\u0340\\u0341\\u06dd\\u070f\\u180e\\u200e\\u200f\\u2028-\\u202e\\u2061-\\u2063' +
    '\\u206a-\\u206f\\u2ff0-\\u2ffb\\ufdd0-\\ufdef\\ufff9-\\uffff\\u{1d173}-\\u{1d17a}\\u{e0001}\\u{e0020}-\\u{e007f}]' +
    '|\\p{Co}|\\p{Cs}|\\p{Noncharacter_Code_Point}',
  'u',
);

const rightToLeft = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}]/u;
const leftToRight = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Han}\p{Script=Hiragana}]/u;

/**
 * The prepared password; or the password as it is where SASLprep forbids it, because PostgreSQL does the same
 * on both sides (RFC 5802 would refuse). Direction is judged by script, an approximation that matters only for
 * mixed-direction passwords which normalisation would also change.
 */
export function saslPrep(password: string): string {
  // Printable ASCII is unchanged by every step.
  if (/^[ -~]*$/.test(password)) return password;
  const prepared = password.replace(otherSpaces, ' ').replace(nothing, '').normalize('NFKC');
  if (prepared === '' || prohibited.test(prepared)) return password;
  if (rightToLeft.test(prepared)) {
    const letters = [...prepared];
    const framed = rightToLeft.test(letters[0]!) && rightToLeft.test(letters.at(-1)!);
    if (!framed || leftToRight.test(prepared)) return password;
  }
  return prepared;
}
