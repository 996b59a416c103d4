// Removes the addresses of sponsors from package-lock.json: with `omit-lockfile-registry-resolved`, the last ones in it.
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
for (const item of Object.values(lock.packages)) delete item.funding;
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
