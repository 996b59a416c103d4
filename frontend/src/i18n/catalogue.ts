/** Texts in a language. All is pure: it knows neither the page nor which languages there are files of. */
import { en } from "./en";

export type Key = keyof typeof en;
/** A text, or its forms for numbers. */
export type Text = string | Partial<Record<Intl.LDMLPluralRule, string>>;
export type Texts = Partial<Record<Key, Text>>;
export type Values = Record<string, string | number>;

/** A language with its texts. Those that it lacks are English. */
export interface Catalogue {
  language: string;
  texts: Texts;
}

export const ENGLISH: Catalogue = { language: "en", texts: en };

/** Languages that are written from right to left. */
const RIGHT_TO_LEFT = new Set(["ar", "fa", "he", "ur"]);

export function direction(language: string): "ltr" | "rtl" {
  return RIGHT_TO_LEFT.has(language.split("-")[0] ?? "") ? "rtl" : "ltr";
}

/** Return the tag for figures of a language. Their digits are those of Airflow's dates, in every language. */
export function localeOf(language: string): string {
  return `${language}-u-nu-latn`;
}

/** Return a figure that stays in one piece in a text from right to left: `$0.25`, `4 GiB`. */
export function figure(text: string, language: string): string {
  return direction(language) === "rtl" ? `\u2066${text}\u2069` : text;
}

const numbers = new Map<string, Intl.NumberFormat>();

/** Return a format of numbers: making one takes longer than a thousand uses. */
export function numberFormat(language: string, options: Intl.NumberFormatOptions = {}): Intl.NumberFormat {
  const key = `${language} ${JSON.stringify(options)}`;
  let format = numbers.get(key);
  if (!format) numbers.set(key, (format = new Intl.NumberFormat(localeOf(language), options)));
  return format;
}

const rules = new Map<string, Intl.PluralRules>();

function formOf(text: Exclude<Text, string>, language: string, number: number): string {
  let rule = rules.get(language);
  if (!rule) rules.set(language, (rule = new Intl.PluralRules(language)));
  return text[rule.select(number)] ?? text.other ?? Object.values(text).at(-1) ?? "";
}

/** Return the text of a key with its values; numbers among them are written as the language does. */
export function translate(catalogue: Catalogue, key: Key, values: Values = {}): string {
  const own = catalogue.texts[key];
  const language = own === undefined ? "en" : catalogue.language;
  const text: Text = own ?? en[key];
  const form = typeof text === "string" ? text : formOf(text, language, Number(values["number"]));
  return form.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    if (value === undefined) return whole;
    if (typeof value === "number") return numberFormat(language).format(value);
    // Names are of another direction than the text around them: isolates keep both in order.
    return direction(language) === "rtl" ? `\u2068${value}\u2069` : value;
  });
}

/** Return the text of a name that a newer server can extend; an unknown one is shown as it is. */
export function translateName(catalogue: Catalogue, prefix: string, name: string): string {
  const key = `${prefix}.${name}`;
  return key in en ? translate(catalogue, key as Key) : name.replaceAll("_", " ");
}

/** Return which of `languages` is the best for a tag such as `de-AT` or `zh-Hant-HK`; `en` if none is. */
export function bestOf(languages: string[], tag: string): string {
  if (languages.includes(tag)) return tag;
  try {
    const wanted = new Intl.Locale(tag).maximize();
    const same = languages.filter((each) => new Intl.Locale(each).language === wanted.language);
    return same.find((each) => new Intl.Locale(each).maximize().script === wanted.script) ?? same[0] ?? "en";
  } catch {
    return "en";
  }
}
