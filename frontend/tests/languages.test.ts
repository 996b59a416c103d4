import { describe, expect, test } from "vitest";

import { bestOf, direction, ENGLISH, translate, type Catalogue, type Key, type Text, type Texts } from "../src/i18n/catalogue";
import { en } from "../src/i18n/en";
import { dollars, duration, memory } from "../src/lib/format";

const FILES = import.meta.glob<Texts>("../src/i18n/locales/*.json", { eager: true, import: "default" });
const CATALOGUES = new Map(
  Object.entries(FILES).map(([file, texts]) => [/([\w-]+)\.json$/.exec(file)?.[1] ?? file, texts]),
);
const LANGUAGES = [...CATALOGUES.keys()].sort();

function catalogueOf(language: string): Catalogue {
  return { language, texts: CATALOGUES.get(language) ?? {} };
}

function formsOf(text: Text): string[] {
  return typeof text === "string" ? [text] : Object.values(text);
}

/** Placeholders, but not the number: "once" and the Arabic dual have none. */
function placeholders(text: string, forms: boolean): string[] {
  const names = new Set(Array.from(text.matchAll(/\{(\w+)\}/g), (found) => found[1] ?? ""));
  if (forms) names.delete("number");
  return [...names].sort();
}

/** The forms that a language has for whole numbers up to a thousand. */
function categoriesOf(language: string): string[] {
  const rules = new Intl.PluralRules(language);
  return [...new Set(Array.from({ length: 1_001 }, (_, number) => rules.select(number)))].sort();
}

test("there is a file for each language of Airflow's UI", () => {
  expect(LANGUAGES).toEqual([
    "ar", "ca", "de", "el", "es", "fr", "he", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh-CN",
    "zh-TW",
  ]);
});

for (const language of LANGUAGES) describe(language, () => {
  const { texts } = catalogueOf(language);

  test("it has the keys of English", () => expect(Object.keys(texts).sort()).toEqual(Object.keys(en).sort()));

  test("each text has the placeholders of the English one", () => {
    for (const [key, text] of Object.entries(en) as [Key, Text][]) {
      const forms = typeof text !== "string";
      const expected = placeholders(formsOf(text).at(-1) ?? "", forms);
      for (const form of formsOf(texts[key] ?? "")) expect(placeholders(form, forms), `${key}: ${form}`).toEqual(expected);
    }
  });

  test("a text with forms has one for every number", () => {
    for (const [key, text] of Object.entries(texts)) {
      if (typeof text !== "string") expect(Object.keys(text).sort(), key).toEqual(categoriesOf(language));
    }
  });

  test("no text is empty, and most are not English", () => {
    const same = (Object.keys(en) as Key[]).filter((key) => JSON.stringify(texts[key]) === JSON.stringify(en[key]));
    for (const [key, text] of Object.entries(texts)) for (const form of formsOf(text)) expect(form.trim(), key).not.toBe("");
    expect(same.length, same.join(" ")).toBeLessThan(30);
  });
});

describe("a language", () => {
  test("its rules choose the form, and its separators are in numbers", () => {
    const pieces = (language: string, number: number) => translate(catalogueOf(language), "run.containers", { number });
    expect(translate(ENGLISH, "run.containers", { number: 1 })).toBe("1 container");
    expect(pieces("de", 1_234)).toBe("1.234 Container");
    const russian = [1, 2, 5, 21, 22].map((number) => pieces("ru", number).replace(/\d+ /, ""));
    expect(new Set(russian).size).toBe(3);
    expect(russian[0]).toBe(russian[3]);
  });

  test("durations and dollars are written in it", () => {
    const { language, texts } = catalogueOf("de");
    expect(duration(4.24, (key, values) => translate({ language, texts }, key, values))).toBe("4,2 s");
    expect(dollars(1234.5, "de")).toMatch(/^1\.235\s\$$/);
  });

  test("names stay in order in languages that are written from right to left", () => {
    expect([direction("ar"), direction("he"), direction("de"), direction("zh-TW")]).toEqual(["rtl", "rtl", "ltr", "ltr"]);
    expect(translate(catalogueOf("ar"), "profile.pause.title", { name: "gpu-1" })).toContain("\u2068gpu-1\u2069");
    expect([dollars(3.5, "ar"), memory(4096, "he")]).toEqual(["\u2066$3.50\u2069", "\u20664 GiB\u2069"]);
  });

  test("the best one is found for the tag of a browser", () => {
    const languages = ["en", ...LANGUAGES];
    expect(["de-AT", "pt-BR", "zh-Hant-HK", "zh", "zh-SG", "xx", "not a tag", "en-GB"].map((tag) => bestOf(languages, tag))).toEqual(
      ["de", "pt", "zh-TW", "zh-CN", "zh-CN", "en", "en", "en"],
    );
  });
});
