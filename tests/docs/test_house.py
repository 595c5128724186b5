"""Compares the picture of the house in CONTRIBUTING.md with the files."""

from __future__ import annotations

import re

from documentation import PAGES, PROJECT


def drawn_paths() -> set[str]:
    """The paths in the tree, whose levels are indented by two blanks each."""
    tree = re.search(r"```\n(airflow_provider_whatsapp/\n.*?)```", PAGES["CONTRIBUTING.md"], re.DOTALL)
    assert tree is not None
    paths: set[str] = set()
    folders: list[str] = []
    for line in tree[1].splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.add("".join(folders) + name)
    return paths


def test_the_tree_has_every_module() -> None:
    files = {str(path.relative_to(PROJECT)) for path in (PROJECT / "airflow_provider_whatsapp").rglob("*.py")}
    modules = {path for path in files if not path.endswith(("__init__.py", "__main__.py"))}
    drawn = drawn_paths()
    assert modules == {path for path in drawn if path.startswith("airflow_provider_whatsapp/")}
    assert all((PROJECT / path).exists() for path in drawn)


def test_the_files_that_recipes_name_exist() -> None:
    for path in re.findall(r"`([\w./]+/[\w.]+\.(?:py|md))`", PAGES["CONTRIBUTING.md"]):
        assert (PROJECT / path).exists() or (PROJECT / "airflow_provider_whatsapp" / path).exists(), path
