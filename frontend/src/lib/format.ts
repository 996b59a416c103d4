/** Texts of figures and times. All are pure: language, time zone and "now" are arguments. */

/** Return `2026-11-29 17:46:28` in a time zone, as Airflow's UI has it. Empty for an unknown time (0). */
export function dateTime(seconds: number, timeZone: string, fraction = false): string {
  if (!seconds) return "";
  // The Swedish form is ISO's.
  return new Intl.DateTimeFormat("sv-SE", {
    timeZone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    ...(fraction ? { fractionalSecondDigits: 3 as const } : {}),
  })
    .format(seconds * 1000)
    .replace(",", ".");
}

/** Return `17:46:28` in a time zone. */
export function clockTime(seconds: number, timeZone: string): string {
  return dateTime(seconds, timeZone).slice(11);
}

/** Return a duration with its two largest units: `350 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, seconds);
  if (whole > 0 && whole < 0.9995) return `${Math.round(whole * 1000)} ms`;
  if (whole < 9.95) return `${trimmed(whole, 1)} s`;
  const rounded = Math.round(whole);
  const units: [string, number][] = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => rounded >= size);
  const [name, size] = units[first] ?? ["s", 1];
  const next = units[first + 1];
  const rest = next ? Math.floor((rounded % size) / next[1]) : 0;
  return `${Math.floor(rounded / size)} ${name}${next && rest ? ` ${rest} ${next[0]}` : ""}`;
}

function trimmed(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.?0+$/, "");
}

/** Return dollars with as many digits as tell something: `$1,234`, `$12.35`, `$0.0042`; `–` for null. */
export function dollars(value: number | null | undefined, language = "en"): string {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.995 ? (size >= 1000 ? 0 : 2) : size >= 0.0995 ? 2 : 4;
  if (size > 0 && size < 0.00005) return "< $0.0001";
  return new Intl.NumberFormat(language, {
    style: "currency",
    currency: "USD",
    currencyDisplay: "narrowSymbol",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}

/** Return a whole number with the language's separators. */
export function count(value: number | null, language = "en"): string {
  if (value === null) return "–";
  return new Intl.NumberFormat(language).format(value);
}

/** Return memory as `512 MiB`, `4 GiB` or `1.5 GiB`; `–` for null. */
export function memory(mebibytes: number | null): string {
  if (mebibytes === null) return "–";
  return mebibytes < 1024 ? `${Math.round(mebibytes)} MiB` : `${trimmed(mebibytes / 1024, 1)} GiB`;
}

/** Return cores as `0.25` or `4`; `–` for null. */
export function cores(value: number | null): string {
  return value === null ? "–" : trimmed(value, 2);
}
