import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const OUTPUT = join(ROOT, "../src/modalflow/ui/static");

/** As `scripts/ui_digest.py` computes it, so that a test needs no node to find a build older than its sources. */
function digest(): string {
  const names = ["package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
  for (const found of readdirSync(join(ROOT, "src"), { recursive: true, withFileTypes: true })) {
    if (found.isFile()) names.push(relative(ROOT, join(found.parentPath, found.name)).split(sep).join("/"));
  }
  const all = createHash("sha256");
  for (const name of names.sort()) {
    all.update(`${name}\0`).update(createHash("sha256").update(readFileSync(join(ROOT, name))).digest("hex")).update("\n");
  }
  return all.digest("hex");
}

function recordSources(): Plugin {
  return {
    name: "record-sources",
    closeBundle: () => writeFileSync(join(OUTPUT, "sources.sha256"), `${digest()}\n`),
  };
}

interface LanguageFile {
  language: string;
  name: string;
  text: string;
}

/** The texts of the languages: a file each, with a hash in its name, so that a page loads one and browsers keep it. */
function languageFiles(): LanguageFile[] {
  const folder = join(ROOT, "src/i18n/locales");
  return readdirSync(folder).sort().map((file) => {
    const language = file.replace(/\.json$/, "");
    const text = JSON.stringify(JSON.parse(readFileSync(join(folder, file), "utf8")));
    const hash = createHash("sha256").update(text).digest("hex").slice(0, 12);
    return { language, name: `languages/${language}-${hash}.json`, text };
  });
}

function writeLanguages(files: LanguageFile[]): Plugin {
  return {
    name: "write-languages",
    generateBundle() {
      for (const { name, text } of files) this.emitFile({ type: "asset", fileName: name, source: text });
    },
  };
}

const LANGUAGES = languageFiles();

/** React and its JSX runtime are those of Airflow's page: two copies of React in one tree do not work together. */
export default defineConfig({
  build: {
    outDir: OUTPUT,
    emptyOutDir: true,
    target: "es2022",
    lib: { entry: join(ROOT, "src/main.tsx"), formats: ["iife"], name: "ModalflowUI", fileName: () => "main.js" },
    rollupOptions: {
      external: ["react", "react/jsx-runtime"],
      output: { globals: { react: "React", "react/jsx-runtime": "ReactJSXRuntime" } },
    },
  },
  define: {
    "process.env.NODE_ENV": JSON.stringify("production"),
    LANGUAGE_FILES: JSON.stringify(Object.fromEntries(LANGUAGES.map(({ language, name }) => [language, name]))),
  },
  plugins: [writeLanguages(LANGUAGES), recordSources()],
});
