"""Whether the built views of Airflow's UI are those of the sources in ``frontend/``. It needs no node.

python -m scripts.ui_sources           print the digest of the sources
python -m scripts.ui_sources --check   fail if the build in ``src/modalflow/ui/static`` is of other sources
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "src/modalflow/ui/static"
#: Where the build records the digest of what it was made of.
RECORD = STATIC / "sources.sha256"

#: What the build depends on, besides ``src/``; as in vite.config.ts.
FILES = ("package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


def digest(folder: Path = FRONTEND) -> str:
    """Return the digest of the sources, as vite.config.ts computes it."""
    names = [*FILES, *(path.relative_to(folder).as_posix() for path in (folder / "src").rglob("*") if path.is_file())]
    every = hashlib.sha256()
    for name in sorted(names):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        every.update(f"{name}\0{content}\n".encode())
    return every.hexdigest()


def problems() -> list[str]:
    """Return the reasons why the build or the lock file must not be committed; empty if there are none."""
    found = []
    recorded = RECORD.read_text().strip() if RECORD.exists() else ""
    if recorded != digest():
        found.append(f"{STATIC.relative_to(ROOT)} was not built from the sources in frontend/; run `make ui`")
    lock = (FRONTEND / "package-lock.json").read_text()
    if addresses := re.findall(r'"[^"]*://[^"]*"', lock):
        found.append(f"frontend/package-lock.json has addresses ({addresses[0]}); run `npm run lock` in frontend/")
    packages = json.loads(lock)["packages"]
    if loose := [name for name, package in packages.items() if name and not package.get("integrity")]:
        found.append(f"frontend/package-lock.json has no hash of {', '.join(loose)}")
    return found


def main() -> int:
    """Print the digest, or check the build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        print(digest())
        return 0
    found = problems()
    for problem in found:
        print(f"ui_sources: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
