"""Compares what the code imports with what ``pyproject.toml`` declares."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parent.parent
# Python 3.10 does not have tomllib yet.
_STANDARD_LIBRARY = sys.stdlib_module_names | {"tomllib"}
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())

#: Distributions whose import package has another name. The longest beginning of a module's name counts.
DISTRIBUTIONS = {
    "airflow": "apache-airflow",
    "airflow.providers.openlineage": "apache-airflow-providers-openlineage",
    "airflow.providers.standard": "apache-airflow-providers-standard",
    "azure.core": "azure-core",
    "azure.storage.blob": "azure-storage-blob",
    "openlineage": "openlineage-python",
    "urllib3.contrib.socks": "pysocks",
    "yaml": "pyyaml",
}

#: Modules of ``airflow_provider_whatsapp`` that only a user of an extra reaches, and that extra.
EXTRAS = {
    "storage/parquet.py": "parquet",
    "storage/gcs.py": "gcs",
    "storage/azure.py": "azure",
    "storage/sftp.py": "sftp",
    "operators/_lineage.py": "openlineage",
}

#: Imports that are not declared, because whoever reaches them has them.
NOT_DECLARED = {
    # Airflow 3.1 asks the hook for its form in the API server only, and brings wtforms or a stand-in there.
    "hooks/whatsapp.py": {"wtforms"},
    # The message for a user who has a SOCKS proxy names the package; everybody else can do without.
    "transport/connections.py": {"pysocks"},
}


def imported_by(path: Path) -> Iterator[str]:
    """The modules that a file imports, also within functions, without the standard library and the package itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            # `from urllib3.contrib import socks` may import a module as well as a name.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            root = name.partition(".")[0]
            if root not in _STANDARD_LIBRARY and root != "airflow_provider_whatsapp":
                yield name


def distribution_of(module: str) -> str:
    """The distribution that a module comes from, e.g. ``azure-core``."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if found := DISTRIBUTIONS.get(".".join(parts[:length])):
            return found
    return parts[0].replace("_", "-")


def declared(*groups: str, extras: Iterable[str] = ()) -> set[str]:
    """The distributions that the package requires, and those of extras and dependency groups."""
    project = PYPROJECT["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    for group in groups:
        requirements += [line for line in PYPROJECT["dependency-groups"][group] if isinstance(line, str)]
    return {canonical(Requirement(line).name) for line in requirements}


def canonical(name: str) -> str:
    """The name as packaging compares it, e.g. ``typing-extensions`` for ``typing_extensions``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared(path: Path, allowed: set[str]) -> set[str]:
    return {distribution_of(module) for module in imported_by(path)} - allowed


PACKAGE = PROJECT / "airflow_provider_whatsapp"


def test_the_package_declares_what_it_imports() -> None:
    missing = {}
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        extras = {EXTRAS[name]} if name in EXTRAS else set()
        missing[name] = undeclared(path, declared(extras=extras) | NOT_DECLARED.get(name, set()))
    assert {name: modules for name, modules in missing.items() if modules} == {}


def test_the_package_imports_what_it_declares() -> None:
    imported = {distribution_of(module) for path in PACKAGE.rglob("*.py") for module in imported_by(path)}
    assert declared() - imported == set()


def test_airflow_brings_what_the_package_requires() -> None:
    brought: set[str] = set()
    waiting = ["apache-airflow"]
    while waiting:
        if (name := canonical(waiting.pop())) not in brought:
            brought.add(name)
            for requirement in map(Requirement, requires(name) or []):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    assert declared() <= brought


def test_no_exception_is_left_over() -> None:
    for name, extra in EXTRAS.items():
        assert undeclared(PACKAGE / name, declared()), name
        assert not undeclared(PACKAGE / name, declared(extras=[extra])), name
    for name, modules in NOT_DECLARED.items():
        assert undeclared(PACKAGE / name, declared()) == modules


@pytest.mark.parametrize(
    ("files", "groups", "extras"),
    [
        ("example_dags/*.py", ["tests"], []),
        ("docs/*.py", ["tests", "docs"], []),
        ("tests/**/*.py", ["tests"], ["openlineage"]),
        ("demo.py", [], []),
        ("e2e/*.py", ["e2e", "browser"], []),
        ("e2e/stores/*.py", ["e2e"], ["s3", "gcs", "azure", "sftp"]),
        ("benchmarks/**/*.py", ["bench"], ["parquet"]),
        ("noxfile.py", ["types"], []),
    ],
)
def test_what_is_beside_the_package_declares_its_imports(files: str, groups: list[str], extras: list[str]) -> None:
    paths = list(PROJECT.glob(files))
    assert paths
    # Scripts import their neighbours and the servers of the stores by name, and tests the modules of tests/support.
    shared = [path for folder in ("tests/support", "e2e", "e2e/stores") for path in (PROJECT / folder).glob("*.py")]
    own = {path.stem for path in [*paths, *shared]} | {"example_dags"}
    allowed = declared(*groups, extras=extras) | {name.replace("_", "-") for name in own}
    missing = {path.name: undeclared(path, allowed) for path in paths}
    assert {name: modules for name, modules in missing.items() if modules} == {}
