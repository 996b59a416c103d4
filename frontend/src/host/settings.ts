import { useSyncExternalStore } from "react";

/**
 * The settings of the user in Airflow's UI. Airflow hands none of them to a plugin: it keeps the time zone in the
 * browser's storage, and the language there and in the page's `lang`. Light and dark are of the design tokens of
 * styles.css.
 */

const TIME_ZONE_KEY = "timezone";

/** Return the name of the time zone chosen in Airflow's UI, or else the browser's. */
export function timeZone(): string {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const stored = localStorage.getItem(TIME_ZONE_KEY);
  if (stored === null) return own;
  try {
    const name: unknown = JSON.parse(stored);
    if (typeof name !== "string") return own;
    Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return own;
  }
}

function onStorage(changed: () => void): () => void {
  // "local-storage" is what Airflow's UI sends to its own page, which "storage" does not reach.
  const events = ["storage", "local-storage"];
  for (const event of events) addEventListener(event, changed);
  return () => {
    for (const event of events) removeEventListener(event, changed);
  };
}

export function useTimeZone(): string {
  return useSyncExternalStore(onStorage, timeZone);
}

const LANGUAGE_KEY = "i18nextLng";
/** The `lang` of Airflow's page before its scripts run. */
const UNSET = "en";

/** Return the language of Airflow's UI. It sets the page's `lang` to a new choice, but not always to a stored one. */
export function language(): string {
  const { lang } = document.documentElement;
  if (changed || (lang && lang !== UNSET)) return lang || UNSET;
  return localStorage.getItem(LANGUAGE_KEY) || UNSET;
}

let changed = false;

/** Call back whenever the language of Airflow's UI changes. */
export function onLanguage(listener: () => void): void {
  new MutationObserver(() => {
    changed = true;
    listener();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["lang"] });
}
