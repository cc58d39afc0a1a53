"""Makes pages of files that are written for GitHub: maps their links, and shows code as rustdoc does."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel
from mkdocs.structure.nav import Link

ROOT = Path(__file__).resolve().parents[2]
#: Pages of files outside of docs/.
OUTSIDE = {
    "index.md": "packaging/site/index.md",
    "overview.md": "README.md",
    "python-package.md": "python/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "weakness.md": "SECURITY.md",
}
#: What is shown for a file or folder of the repository. Others of docs/ have the page of their name.
PAGES = {source: page for page, source in OUTSIDE.items()} | {"docs/design": "contributing.md"}
#: Further entries of the navigation, by their sections: a part of a page, and pages that other programs make.
ENTRIES = {"Python": {"Tables": "tables.html#python", "API": "python-api/arenite.html"}}
ENTRIES["Rust"] = {"API": "rust/arenite/index.html"}
#: Blocks of code, code, and links and pictures: what comes before the target, and the target.
LINKS = re.compile(r"^ *```.*?^ *```|`[^`]+`|(\]\(|\bsrc(?:set)?=\")([^)\s\"]+)", re.MULTILINE | re.DOTALL)
#: A line of index.md that stands for a part of another file.
PART = re.compile(r"^( *)\{(\S+) (\w+)\}$", re.MULTILINE)


def on_files(files, config):
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.remove(files.get_file_from_path("llms.txt"))
    text = mapped((ROOT / "docs/llms.txt").read_text(), "docs/llms.txt", "llms.txt", config).replace(".md)", ".html)")
    files.append(File.generated(config, "llms.txt", content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_nav(nav, config, files):
    for section in nav.items:
        for title, page in ENTRIES.get(section.title, {}).items():
            section.children.append(Link(title, page))
            section.children[-1].parent = section
    return nav


def on_page_markdown(markdown, page, config, files):
    own = page.file.src_uri
    # Searches find what users read first.
    page.meta["search"] = {"boost": 0.3 if own.startswith(("design/", "changelog", "contributing")) else 1}
    if own == "index.md":
        markdown = PART.sub(lambda place: part(*place.groups(), config), markdown)
    markdown = mapped(markdown, OUTSIDE.get(own, f"docs/{own}"), own, config)
    return "\n".join(shown(markdown))


def on_page_content(html, page, config, files):
    """Lets long code in cells of tables be broken at dots and brackets, and long names at each word; nowhere else."""

    def breakable(code):
        text = re.sub(r"\w{25,}", lambda name: name[0].replace("_", "_<wbr>"), code[0])
        return re.sub(r"(?<=[\w);])(?=\.[a-z])|(?<=[(:])(?=\w)", "<wbr>", text)

    pieces = re.split(r"(<td.*?</td>)", html, flags=re.DOTALL)
    pieces[1::2] = [re.sub(r"(?<=<code>)[^<]+", breakable, cell) for cell in pieces[1::2]]
    return "".join(pieces)


def part(indent, source, kind, config):
    """The first paragraph, table or block of this language of a file, for the front page."""
    pattern = {"text": r"(?<=\n\n)\w.*?(?=\n\n)", "table": r"^\|.*?(?=\n\n)"}.get(kind, rf"^```{kind}\b.*?^```$")
    found = re.search(pattern, (ROOT / source).read_text(), re.MULTILINE | re.DOTALL)
    return indent + mapped(found[0], source, "index.md", config).replace("\n", "\n" + indent)


def mapped(text, source, own, config):
    """The text of a file with links to pages of the site where there is one, and to the repository otherwise."""
    return LINKS.sub(lambda link: link[1] + target(link[2], source, own, config) if link[1] else link[0], text)


def target(link, source, own, config):
    path, hash, anchor = link.partition("#")
    of_repository = f"{config.repo_url}/blob/main/"
    raw = config.repo_url.replace("//github.com", "//raw.githubusercontent.com") + "/main/"
    if path.startswith((of_repository, raw)):
        path = path.removeprefix(of_repository).removeprefix(raw)
    elif not path or "://" in path:
        return link
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (ROOT / path).exists():
        return link  # mkdocs says so.
    page = PAGES.get(path) or re.sub(r"^docs/(.*\.md|pictures/.*)$", r"\1", path)
    if page != path:
        return posixpath.relpath(page, posixpath.dirname(own)) + hash + anchor
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{config.repo_url}/{kind}/main/{path}{hash}{anchor}"


def shown(markdown):
    """The lines of a page: code as rustdoc shows it, without its options, and lists indented as mkdocs reads them."""
    is_code = is_rust = False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
            is_rust = is_code and line.lstrip().startswith("```rust")
            line = line.partition(",")[0]
        elif is_rust and re.match(r" *#( |$)", line):
            continue
        elif not is_code:
            line = re.sub(r"^ {2,3}(?=\S)", "    ", line)
            if line.startswith("|"):  # In tables, GitHub also wants pipes in code escaped.
                line = re.sub(r"`[^`]+`", lambda code: code[0].replace(r"\|", "|"), line)
        yield line
