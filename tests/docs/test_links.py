"""Checks that links lead somewhere and that the commands in the documentation exist."""

from __future__ import annotations

import re

import pytest
from documentation import PAGES, PROJECT


def anchors(page: str) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    folder = PROJECT if (PROJECT / page).exists() else PROJECT / "docs"
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        assert (folder / target).exists(), target
        if anchor:
            assert anchor in anchors((folder / (target or page)).name), anchor


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((?:docs/)?([\w-]+\.md)\)", PAGES["README.md"]))
    assert linked | {"README.md"} == set(PAGES)


def test_commands() -> None:
    sessions = set(re.findall(r"@nox\.session.*?\ndef (\w+)", (PROJECT / "noxfile.py").read_text(), re.DOTALL))
    for text in (*PAGES.values(), (PROJECT / ".ci" / "run").read_text()):
        for names in re.findall(r"nox -s ([a-z ]+)", text):
            assert set(names.split()) <= sessions
    # CONTRIBUTING.md lists all of them.
    listed = re.findall(r"nox -s ([a-z ]+)", PAGES["CONTRIBUTING.md"])
    assert set(" ".join(listed).split()) == sessions


def test_no_page_mentions_a_name_that_is_gone() -> None:
    for page, text in PAGES.items():
        for old in ("client_wabas", "owned_wabas", "ClientWabas", "stand-in", " shall "):
            assert old not in text, (old, page)
