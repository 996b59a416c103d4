/** The catalogue of the language that the user chose. The page loads its file, once, when it is first needed. */
import { fileAddress } from "../api/client";
import { language, onLanguage } from "../host/settings";
import { bestOf, ENGLISH, type Catalogue, type Texts } from "./catalogue";

/** Language → its file below `static/`; vite.config.ts defines it. English is in the bundle. */
declare const LANGUAGE_FILES: Record<string, string>;

const known = new Map([["en", ENGLISH]]);
const listeners = new Set<() => void>();
let shown = ENGLISH;
let wanted = "en";

/** Return the catalogue to show. While a file loads, it is that of the language before. */
export function catalogue(): Catalogue {
  return shown;
}

export function onCatalogue(changed: () => void): () => void {
  listeners.add(changed);
  return () => listeners.delete(changed);
}

function show(next: Catalogue): void {
  shown = next;
  for (const changed of listeners) changed();
}

async function follow(): Promise<void> {
  const best = bestOf(["en", ...Object.keys(LANGUAGE_FILES)], language());
  wanted = best;
  let next = known.get(best);
  if (!next) {
    try {
      const response = await fetch(fileAddress(LANGUAGE_FILES[best] ?? ""), { credentials: "same-origin" });
      if (!response.ok) throw new Error(String(response.status));
      next = { language: best, texts: (await response.json()) as Texts };
      known.set(best, next);
    } catch {
      next = known.get(best) ?? ENGLISH;
      document.addEventListener("visibilitychange", retry);
    }
  }
  // Another language may have been chosen meanwhile.
  if (wanted === best && next !== shown) show(next);
}

/** Try again when the user comes back to the page: by then, the network may work. */
function retry(): void {
  if (document.hidden) return;
  document.removeEventListener("visibilitychange", retry);
  void follow();
}

/** Begin to follow the language of Airflow's UI. */
export function followLanguage(): void {
  onLanguage(() => void follow());
  void follow();
}
