import { useMemo, useSyncExternalStore } from "react";

import { translate, translateName, type Key, type Values } from "./catalogue";
import { catalogue, onCatalogue } from "./chosen";

export type { Key } from "./catalogue";
export type Translate = (key: Key, values?: Values) => string;

export interface Translation {
  /** Of the texts, and so of the figures among them. */
  language: string;
  t: Translate;
  /** For names that a newer server can extend. */
  named: (prefix: string, name: string) => string;
}

export function useTexts(): Translation {
  const shown = useSyncExternalStore(onCatalogue, catalogue);
  return useMemo(
    () => ({
      language: shown.language,
      t: (key, values) => translate(shown, key, values),
      named: (prefix, name) => translateName(shown, prefix, name),
    }),
    [shown],
  );
}
