"""The site: `python -m tools.site` makes build/site of the pages, strictly, without a network.

Pages link to one another and to files of the repository as they lie there, so that both work where the
repository is read. Here they are copied to build/pages: docs/ becomes the root, and every other file that is
linked a page below `source/`, so no link leads out of the site. Zensical then builds it, and refuses links
and anchors that lead nowhere; what is built may load nothing from elsewhere.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES, SITE = ROOT / "build/pages", ROOT / "build/site"
BEGIN = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "how-to").glob("*.md")), ROOT / "README.md"]
"""The pages that are there for themselves; what they link to comes with them."""
IMAGES = {".svg", ".png", ".jpg", ".gif"}
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[`~]*[ \t]*$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\(\s*<?)([^)\s>#]+)((?:#[^)\s>]*)?>?[^)]*\))")
DEFINITION = re.compile(r"(^[ \t]*\[[^\]]+\]:[ \t]*<?)([^\s>#]+)(.*$)", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
BLOCK = re.compile(r"(?:[*-] |\d+\. |\||```|~~~)")
LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".json": "json", ".toml": "toml"}
LOADING = ("src", "href", "srcset", "data", "poster")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LATER = re.compile(r"\b(?:mermaid|glightbox|pyodide)\b")
"""What Zensical's script would load from elsewhere, where a page has it."""


def main() -> None:
    """Build the site, or say why not and exit 1."""
    stage()
    zensical = Path(sys.executable).with_name("zensical")
    command = [str(zensical), "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode:
        said, _, _ = (built.stdout + built.stderr).partition("Traceback")
        sys.exit(f"{COLOUR.sub('', said)}error: the site can't be built")
    if found := [f"{page.relative_to(SITE)}: {what}" for page, what in foreign(SITE)]:
        sys.exit("error: the site loads from elsewhere:\n" + "\n".join(found))
    sys.stdout.write(f"built {len(list(SITE.rglob('*.html')))} pages: {SITE / 'index.html'}\n")


def stage() -> None:
    """Copy the pages, and whatever they link to, into `PAGES`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting, done = list(BEGIN), set[Path]()
    while waiting:
        file = waiting.pop()
        if file in done:
            continue
        done.add(file)
        copy = PAGES / staged(file)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in IMAGES:
            shutil.copyfile(file, copy)
        elif file.suffix == ".md":
            text, linked = with_links_of_the_site(file)
            copy.write_text(spaced(text), encoding="utf-8")
            waiting += linked
        else:
            copy.write_text(source_page(file), encoding="utf-8")


def staged(file: Path) -> Path:
    """Where a file of the repository is copied to, below `PAGES`."""
    if file.is_relative_to(DOCS) and file.suffix in {".md", *IMAGES}:
        return file.relative_to(DOCS)
    page = Path("source", *(part.lstrip(".") for part in file.relative_to(ROOT).parts))  # none is hidden
    return page if file.suffix in {".md", *IMAGES} else page.with_name(page.name + ".md")


def with_links_of_the_site(file: Path) -> tuple[str, list[Path]]:
    """The page's text with its links as they are in the site, and the files that they lead to."""
    linked: list[Path] = []

    def relinked(match: re.Match[str]) -> str:
        before, target, rest = match.groups()
        if ELSEWHERE.match(target):
            return match[0]
        aim = (file.parent / target).resolve()
        if aim.is_dir():
            aim /= "README.md"
        if not aim.is_file():
            return match[0]  # Zensical refuses it
        linked.append(aim)
        return f"{before}{os.path.relpath(PAGES / staged(aim), (PAGES / staged(file)).parent)}{rest}"

    parts = CODE.split(file.read_text(encoding="utf-8"))
    for number in range(0, len(parts), 2):  # between the code
        parts[number] = DEFINITION.sub(relinked, LINK.sub(relinked, parts[number]))
    return "".join(parts), linked


def spaced(text: str) -> str:
    """With an empty line before each list, table and block of code, which Python-Markdown wants."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        before = lines[-1] if lines else ""
        if not fence and before and BLOCK.match(line) and not BLOCK.match(before) and before[0] != " ":
            lines.append("")
        lines.append(line)
        if line.startswith(("```", "~~~")):
            if not fence:
                fence = line[:3]
            elif line.startswith(fence):
                fence = ""
                lines.append("")
    return "\n".join(lines) + "\n"


def source_page(file: Path) -> str:
    """A page that shows a file of the repository."""
    language = LANGUAGES.get(file.suffix, "text")
    name = file.relative_to(ROOT).as_posix()
    return f"# {name}\n\n~~~~ {language}\n{file.read_text(encoding='utf-8')}\n~~~~\n"


class Loads(HTMLParser):
    """What a page loads by itself: scripts, styles, fonts, images and frames; no links that people follow."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        rel = set(given.get("rel", "").split())
        if tag != "a" and not (tag == "link" and rel & {"canonical", "next", "prev"}):
            self.found += [
                given[name] for name in ("src", "href", "srcset", "data", "poster") if name in given
            ]
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style", ""))
        self.found += LATER.findall(given.get("class", ""))


def foreign(site: Path) -> Iterator[tuple[Path, str]]:
    """What pages and styles would load from another site."""
    for page in sorted(site.rglob("*.html")):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        yield from ((page, what) for what in loads.found if is_foreign(what) or LATER.fullmatch(what))
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        loaded = re.findall(r"url\(\s*[\"']?([^)\"']*)", text) + re.findall(r"@import\s+[\"']([^\"']*)", text)
        yield from ((style, what) for what in loaded if is_foreign(what))


def is_foreign(address: str) -> bool:
    """Whether it is on another site. What is within the page (data:) isn't."""
    return bool(re.match(r"\s*(?:[a-z]+:)?//", address, re.IGNORECASE))


if __name__ == "__main__":
    main()
