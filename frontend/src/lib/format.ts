/** Texts of figures and times. All are pure: language, time zone and "now" are arguments. */
import { direction, ENGLISH, figure, numberFormat, translate } from "../i18n/catalogue";
import type { Translate } from "../i18n";

const english: Translate = (key, values) => translate(ENGLISH, key, values);

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

type Unit = "d" | "h" | "min" | "s";

/** Return a duration with its two largest units: `350 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number, t: Translate = english): string {
  const whole = Math.max(0, seconds);
  if (whole > 0 && whole < 0.9995) return t("unit.ms", { number: Math.round(whole * 1000) });
  if (whole < 9.95) return t("unit.s", { number: Math.round(whole * 10) / 10 });
  const rounded = Math.round(whole);
  const units: [Unit, number][] = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => rounded >= size);
  const [name, size] = units[first] ?? ["s", 1];
  const next = units[first + 1];
  const rest = next ? Math.floor((rounded % size) / next[1]) : 0;
  const most = t(`unit.${name}`, { number: Math.floor(rounded / size) });
  return next && rest ? `${most} ${t(`unit.${next[0]}`, { number: rest })}` : most;
}

/** Return dollars with as many digits as tell something: `$1,234`, `$12.35`, `$0.0042`; `–` for null. */
export function dollars(value: number | null | undefined, language = "en"): string {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.995 ? (size >= 1000 ? 0 : 2) : size >= 0.0995 ? 2 : 4;
  // With the sign of the other direction, browsers tear "US$" apart.
  if (direction(language) === "rtl") return figure(dollars(value), language);
  if (size > 0 && size < 0.00005) return `< ${dollars(0.0001, language)}`;
  return numberFormat(language, {
    style: "currency",
    currency: "USD",
    currencyDisplay: "narrowSymbol",
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(value);
}

/** Return a whole number with the language's separators. */
export function count(value: number | null, language = "en"): string {
  return value === null ? "–" : numberFormat(language).format(value);
}

/** Return memory as `512 MiB`, `4 GiB` or `1.5 GiB`; `–` for null. */
export function memory(mebibytes: number | null, language = "en"): string {
  if (mebibytes === null) return "–";
  if (mebibytes < 1024) return figure(`${decimal(mebibytes, 0, language)} MiB`, language);
  return figure(`${decimal(mebibytes / 1024, 1, language)} GiB`, language);
}

/** Return cores as `0.25` or `4`; `–` for null. */
export function cores(value: number | null, language = "en"): string {
  return value === null ? "–" : decimal(value, 2, language);
}

function decimal(value: number, digits: number, language: string): string {
  return numberFormat(language, { maximumFractionDigits: digits, useGrouping: false }).format(value);
}
