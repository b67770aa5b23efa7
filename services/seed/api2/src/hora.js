// `hora`: the sender's wall clock, to the second.

const CLOCK =
  // RFC 3339, section 5.6: fraction and offset.
  /^([0-9]{4})-([0-9]{2})-([0-9]{2})([ Tt])([0-9]{2}):([0-9]{2}):([0-9]{2})((?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?$/;

/**
 * Reads `YYYY-MM-DD HH:MM:SS` or RFC 3339, in the years that DATETIME holds. Of the
 * latter the wall clock is kept and the offset dropped, because the column is the
 * sender's local time; a fraction of a second is cut, never rounded into the next day.
 *
 * @returns {string | undefined} `YYYY-MM-DD HH:MM:SS`
 */
export function parseHora(text) {
  const match = CLOCK.exec(text);
  if (match === null) return undefined;
  const [, year, month, day, joint, hour, minute, given, offset] = match;
  if (joint !== " " && offset === undefined) return undefined;
  // RFC 3339 knows second 60; the wall clock of a leap second is shown as 59.
  const second = given === "60" && offset !== undefined ? "59" : given;
  const clock = `${year}-${month}-${day} ${hour}:${minute}:${second}`;
  // The calendar: a day that is not there would come back as another one.
  const date = new Date(`${clock.replace(" ", "T")}Z`);
  const real = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(clock.replace(" ", "T"));
  return real && year >= "1000" ? clock : undefined;
}
