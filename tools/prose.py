"""How a page reads: the sentences of its prose, and the measured figures in it.

Prose is paragraphs and items of lists. Code, tables, headings and comments aren't, and of a link only its
words are. A sentence ends at a full stop, a question mark or an exclamation mark before a capital letter,
code or a number, and at the end of its paragraph or item; a colon or a semicolon ends none.
"""

import re
from collections.abc import Iterator

FENCED = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[^\n]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
NO_PROSE = re.compile(r"#|\||!\[|<|\[[^\]]+\]:|    ")
ITEM = re.compile(r"(?:[*+-]|\d+\.)\s+")
END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z\d])")
WORD = re.compile(r"\w[\w'’./-]*")
A_CODE = "Code"

FIGURE = re.compile(
    r"\d[\d.,]*\s?(?:ms|µs|us|ns)\b"  # a time that somebody measured
    r"|\d[\d.,]*\s?%"
    r"|\d[\d.,]*\s+times\s+(?:as|one|the)\b"
    r"|\d[\d.,]*(?:/s\b|\s+\w+\s+a\s+second)"
    r"|(?<![\d.])0\.\d+(?![\d.])"  # a ratio; no version
    r"|\bp(?:50|9+)\b"
)
BUDGETS = {"50 ms"}
"""What looks like a figure and is a limit that the program keeps: a swap's locks are held no longer."""


def sentences(text: str) -> list[str]:
    """The sentences of a page, code in them as one word."""
    found: list[str] = []
    for block in _blocks(COMMENT.sub("", FENCED.sub("", text))):
        plain = LINK.sub(r"\1", CODE.sub(A_CODE, block)).replace("*", "")
        found += [part for part in END.split(plain) if len(words(part)) > 1]
    return found


def words(sentence: str) -> list[str]:
    """The words of a sentence; a number or a piece of code is one."""
    return WORD.findall(sentence)


def _blocks(text: str) -> Iterator[str]:
    """Its paragraphs and items, each as one line."""
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        item = ITEM.match(line.strip())
        if item or not line.strip() or (NO_PROSE.match(line) and not (lines and line.startswith("    "))):
            if lines:
                yield " ".join(lines)
            lines = [line.strip()[item.end() :]] if item else []
        else:
            lines.append(line.strip())


def mean(text: str) -> float:
    """The mean length of a page's sentences, in words."""
    found = sentences(text)
    return sum(len(words(each)) for each in found) / max(1, len(found))


def figures(text: str) -> list[str]:
    """What was measured, as the page tells it, in tables too: times, shares, rates, ratios. No limits."""
    plain = CODE.sub(A_CODE, COMMENT.sub("", FENCED.sub("", text)))
    return [each for each in FIGURE.findall(plain) if each not in BUDGETS]
