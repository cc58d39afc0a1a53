"""Follows every link of a built site: `check.py FOLDER [WITHOUT…]`, with folders in it that are not built. Names each
link to a page, file or anchor that does not exist, and whatever a page would load from another server."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = dict(re.findall(r"^(\w+_url): (.+)$", Path(__file__).with_name("mkdocs.yml").read_text(), re.MULTILINE))
#: Where the site will be.
URL = SETTINGS["site_url"]
REPOSITORY = re.compile(re.escape(SETTINGS["repo_url"]) + "/(?:blob|tree)/main/([^#?]*)")
#: Relations of <link> that load nothing; what other elements than <a> refer to is loaded with the page.
NOT_LOADED = {"canonical", "alternate", "next", "prev"}
#: Dead links that rustdoc makes to hidden items, and takes from texts of other crates. It checks those of this one.
OF_RUSTDOC = re.compile(r".*trait\.\w+\.(html|js)(#(tymethod|associatedtype)\.\w+)?|dispatcher#.*|\w+::\w+")


class Page(HTMLParser):
    """The anchors of a page, and its links: target, and whether it is loaded with the page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = {"", "top"}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        of = {name: value or "" for name, value in attributes}
        self.anchors |= {of[name] for name in ("id", "name") if name in of}
        if tag == "meta" and of.get("http-equiv", "").lower() == "refresh":
            self.links.append((of["content"].partition("url=")[2].strip("'\""), False))
        for name in {"href", "src", "data"} & of.keys():
            self.links.append((of[name], tag != "a" and not NOT_LOADED & set(of.get("rel", "").split())))

    handle_startendtag = handle_starttag


def main(folder, *without):
    folder, dead, links = Path(folder), {}, 0
    pages = {path: Page(path.read_text()) for path in folder.rglob("*.html")}
    found = {path: page.links for path, page in pages.items()}
    for path in folder.rglob("*.css"):
        found[path] = [(match, True) for match in re.findall(r"url\(\s*['\"]?([^'\")]+)", path.read_text())]
    for path, targets in sorted(found.items()):
        here = urljoin(URL, str(path.relative_to(folder)))
        for target, loads in targets:
            links += 1
            why = fault(folder, pages, here, target, loads, without)
            if why and not (here.startswith(f"{URL}rust/") and OF_RUSTDOC.fullmatch(target)):
                dead[f"{path.relative_to(folder)}: {target}: {why}"] = None
    print("\n".join(dead), file=sys.stderr, end="\n" if dead else "")
    print(f"{len(pages)} pages, {links} links, {len(dead)} dead")
    return bool(dead) or not pages


def fault(folder, pages, here, target, loads, without):
    """What is wrong with a link, if anything."""
    absolute, anchor = urldefrag(urljoin(here, target))
    if not absolute.startswith(URL):
        if loads and not target.startswith("data:"):
            return "loaded from elsewhere"
        of_repository = REPOSITORY.match(absolute)
        if of_repository and not (ROOT / unquote(of_repository[1])).exists():
            return "not in the repository"
        return "outside of the site" if urlsplit(absolute)[:2] == urlsplit(URL)[:2] else None
    inside = unquote(urlsplit(absolute).path.removeprefix(urlsplit(URL).path))
    if inside.startswith(without):
        return None
    path = folder / inside
    if path.is_dir():
        path /= "index.html"
    if not path.is_file():
        return "no such page"
    if path not in pages:
        return None
    anchors = pages[path].anchors
    # Pages of Rust sources have lines for anchors, and mark ranges of them by a script.
    lines = re.fullmatch(r"(\d+)-(\d+)", anchor)
    missing = [part for part in (lines.groups() if lines else [anchor]) if not {part, unquote(part)} & anchors]
    return f"no anchor {missing[0]}" if missing else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
