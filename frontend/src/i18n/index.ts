import { useMemo } from "react";

import { useLanguage } from "../host/settings";
import { en } from "./en";

export type Key = keyof typeof en;
export type Values = Record<string, string | number>;
export type Translate = (key: Key, values?: Values) => string;

/**
 * The translations, by the codes of Airflow's languages (`de`, `zh-CN`, …). Texts that one lacks are English.
 * To add a language, add a file beside `en.ts` with its texts, and name it here.
 */
const LANGUAGES: Record<string, Partial<Record<Key, string>>> = { en };

/** Return the text of a key with its values, in a language, or else in English. */
export function translate(language: string, key: Key, values: Values = {}): string {
  const texts = LANGUAGES[language] ?? LANGUAGES[language.split("-")[0] ?? ""];
  const text = texts?.[key] ?? en[key];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** Return the text of a name that a newer server can extend; an unknown one is shown as it is. */
export function translateName(language: string, prefix: string, name: string): string {
  const key = `${prefix}.${name}`;
  return key in en ? translate(language, key as Key) : name.replaceAll("_", " ");
}

export interface Texts {
  language: string;
  t: Translate;
  /** For names that a newer server can extend. */
  named: (prefix: string, name: string) => string;
}

export function useTexts(): Texts {
  const language = useLanguage();
  return useMemo(
    () => ({
      language,
      t: (key, values) => translate(language, key, values),
      named: (prefix, name) => translateName(language, prefix, name),
    }),
    [language],
  );
}
