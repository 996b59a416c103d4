import { beforeEach, expect, test, vi } from "vitest";

import { en } from "../src/i18n/en";

const airflows = vi.hoisted(() => ({ language: "en", changed: () => {} }));
vi.mock("../src/host/settings", () => ({
  language: () => airflows.language,
  onLanguage: (changed: () => void) => { airflows.changed = changed; },
}));

class Page extends EventTarget {
  baseURI = "http://airflow/";
  hidden = false;
}

let page: Page;
let answers: { resolve: (response: Response) => void; reject: (error: Error) => void }[];

beforeEach(() => {
  vi.resetModules();
  airflows.language = "en";
  page = new Page();
  answers = [];
  vi.stubGlobal("document", page);
  vi.stubGlobal("LANGUAGE_FILES", { de: "languages/de.json" });
  vi.stubGlobal("fetch", () => new Promise((resolve, reject) => answers.push({ resolve, reject })));
});

async function followed() {
  const texts = await import("../src/i18n/chosen");
  texts.followLanguage();
  return () => texts.catalogue().language;
}

function choose(language: string) {
  airflows.language = language;
  airflows.changed();
}

const GERMAN = () => Response.json(en);

test("a late failure leaves loaded texts in place", async () => {
  const shown = await followed();
  choose("de");
  choose("de");
  answers[1]?.resolve(GERMAN());
  await vi.waitFor(() => expect(shown()).toBe("de"));
  answers[0]?.reject(new Error("lost"));
  await new Promise((done) => setTimeout(done));
  expect(shown()).toBe("de");
});

test("a file that failed is loaded when the user comes back to the page", async () => {
  const shown = await followed();
  choose("de");
  answers[0]?.reject(new Error("lost"));
  await new Promise((done) => setTimeout(done));
  expect(shown()).toBe("en");
  page.hidden = true;
  page.dispatchEvent(new Event("visibilitychange"));
  expect(answers).toHaveLength(1);
  page.hidden = false;
  page.dispatchEvent(new Event("visibilitychange"));
  page.dispatchEvent(new Event("visibilitychange"));
  expect(answers).toHaveLength(2);
  answers[1]?.resolve(GERMAN());
  await vi.waitFor(() => expect(shown()).toBe("de"));
});
