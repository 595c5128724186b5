"""Reads the pages of the documentation: their snippets, their tables and their links."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
PAGES = {path.name: path.read_text() for path in (*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"))}


def snippet(name: str, page: str) -> str:
    """The code of the snippet below the comment ``<!-- name -->``."""
    found = re.findall(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGES[page], re.DOTALL)
    assert len(found) == 1, (name, page)
    return str(found[0])


def section(heading: str, page: str) -> str:
    """The text below a heading, up to the next heading of the same or a higher level."""
    level = heading.split(" ")[0]
    _, found, text = PAGES[page].partition(f"\n{heading}\n")
    assert found, (heading, page)
    return re.split(rf"^#{{1,{len(level)}}} ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)[0]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text, each as rows of cells without their header."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in block.splitlines()[2:]] for block in blocks]


def code_in(cell: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def names_in_first_column(table: list[list[str]]) -> list[str]:
    """The names in backticks in the first column, without parentheses and what is in them."""
    return [name.partition("(")[0] for row in table for name in code_in(row[0])]
