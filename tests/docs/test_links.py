"""Checks that links lead somewhere and that the commands in the documentation exist."""

from __future__ import annotations

import re

import pytest
import yaml
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


def test_navigation() -> None:
    """The index of the site has every page once, so that every page can be found."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", PAGES["index.md"], re.DOTALL)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    pages = {path.stem for path in (PROJECT / "docs").glob("*.md")} - {"index"}
    assert sorted(entries) == sorted(pages)


def test_pictures() -> None:
    shown = {(page, name) for page, text in PAGES.items() for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)}
    pictures = {path.name: path for kind in ("png", "svg") for path in (PROJECT / "docs").glob(f"*.{kind}")}
    assert {name for _, name in shown} == set(pictures)
    assert all(path.stat().st_size < 150_000 for path in pictures.values())


def test_examples() -> None:
    headings = re.findall(r"^## (\w+)$", PAGES["examples.md"], re.MULTILINE)
    files = re.findall(r"```\{literalinclude\} \.\./example_dags/(\w+)\.py\n", PAGES["examples.md"])
    assert headings == files == sorted(path.stem for path in (PROJECT / "example_dags").glob("*.py"))


def test_api_reference() -> None:
    """The reference has every public module, and takes the names from its ``__all__``."""
    modules = re.findall(r"^([\w.]+):$", (PROJECT / "tests" / "public_api.txt").read_text(), re.MULTILINE)
    documented = re.findall(r"automodule:: airflow_provider_whatsapp\.([\w.]+)\n", PAGES["api.md"])
    assert sorted(documented) == sorted(modules)


def test_user_pages_have_no_syntax_of_sphinx() -> None:
    for page, text in PAGES.items():
        if page not in {"index.md", "api.md", "examples.md"}:
            assert not re.search(r"```\{|^:::", text, re.MULTILINE), page


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((?:docs/)?([\w-]+\.md)\)", PAGES["README.md"]))
    assert linked | {"README.md"} == set(PAGES)


def test_commands() -> None:
    noxfile = (PROJECT / "noxfile.py").read_text()
    sessions = set(re.findall(r"@nox\.session.*?\ndef (\w+)", noxfile, re.DOTALL))
    checks = re.findall(r'^    "(\w+)": \("(?:python|pytest)"', noxfile, re.MULTILINE)
    scripts = [PROJECT / ".ci" / "run", *(PROJECT / ".github" / "workflows").iterdir()]
    readme = (PROJECT / "e2e" / "README.md").read_text()
    for text in (*PAGES.values(), readme, *(path.read_text() for path in scripts)):
        for names in re.findall(r"nox -s \"?([a-z0-9 ]+)", text):
            assert set(names.split()) <= sessions
        assert set(re.findall(r"nox -s e2e -- ([a-z]+)", text)) <= {*checks, "all"}
    # CONTRIBUTING.md lists all sessions, and e2e/README.md and the weekly workflow all checks.
    listed = re.findall(r"nox -s ([a-z0-9 ]+)", PAGES["CONTRIBUTING.md"])
    assert set(" ".join(listed).split()) == sessions
    assert re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE) == checks
    weekly = yaml.safe_load((PROJECT / ".github" / "workflows" / "e2e.yml").read_text())
    assert weekly["jobs"]["check"]["strategy"]["matrix"]["name"] == checks
