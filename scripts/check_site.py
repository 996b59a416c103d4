"""Check a built site: links within it lead to files and anchors that exist, and nothing is loaded from another host.

Usage: python -m scripts.check_site FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

#: Elements that a browser loads at once, and the attribute with the address. A <link> counts by its `rel`.
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
LOADING_RELS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest"}
HOST = "https://site.invalid/"


@dataclass
class Page(HTMLParser):
    """The anchors of a page, and the addresses that it names."""

    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the id, the link and what is loaded."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        address = found.get(LOADED.get(tag, ""))
        if address and (tag != "link" or LOADING_RELS & set(found.get("rel", "").split())):
            self.loaded.add(address)


def read(path: Path) -> Page:
    """Return what a page has."""
    page = Page()
    page.feed(path.read_text())
    return page


def problems(site: Path) -> Iterator[str]:
    """Yield a line for each thing that is wrong."""
    pages = {path.relative_to(site).as_posix(): read(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} has no page"
    for name, page in pages.items():
        if name == "404.html":
            # It is shown at any address, so its links are absolute.
            continue
        for address in sorted(page.links | page.loaded):
            target = urlsplit(urljoin(HOST + name, address))
            if f"{target.scheme}://{target.netloc}/" != HOST:
                if address in page.loaded:
                    yield f"{name} loads {address} from another host"
                continue
            path = unquote(target.path).lstrip("/") or "index.html"
            if not (site / path).is_file():
                yield f"{name} links to {address}, and the site has no {path}"
            elif target.fragment and path in pages and unquote(target.fragment) not in pages[path].anchors:
                yield f"{name} links to {address}, and {path} has no such anchor"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    sys.stdout.write("\n".join([*found, f"{len(found)} broken links in {sys.argv[1]}\n"]))
    sys.exit(bool(found))
