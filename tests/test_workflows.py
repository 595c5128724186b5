"""Checks what the workflows run, and with which rights."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parent.parent
WORKFLOWS = {path.name: path.read_text() for path in (PROJECT / ".github" / "workflows").glob("*.yml")}
PYPROJECT = (PROJECT / "pyproject.toml").read_text()
NOXFILE = (PROJECT / "noxfile.py").read_text()


def jobs(workflow: str) -> dict[str, Any]:
    return dict(yaml.safe_load(WORKFLOWS[workflow])["jobs"])


def combinations() -> set[tuple[str, str]]:
    """The versions of Airflow and Python that CI runs."""
    matrix = jobs("ci.yml")["matrix"]["strategy"]["matrix"]
    assert set(matrix) == {"airflow", "python"}
    return set(itertools.product(matrix["airflow"], matrix["python"]))


def test_every_version_that_is_promised_is_run() -> None:
    found = re.search(r"Airflow ([\d., and]+) with Python (3\.\d+) to (3\.\d+)\b", (PROJECT / "README.md").read_text())
    assert found is not None
    airflow, ends = re.findall(r"3\.\d+", found[1]), found.groups()[1:]
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert ends == (pythons[0], pythons[-1])
    assert combinations() == set(itertools.product(airflow, ends))


def test_nox_has_a_session_for_each_combination() -> None:
    found = re.search(
        r'@nox\.session\(python=(\[.*?\])\)\n@nox\.parametrize\("airflow", (\[.*?\])\)\ndef matrix', NOXFILE
    )
    assert found is not None
    pythons, airflow = (yaml.safe_load(text) for text in found.groups())
    assert combinations() == set(itertools.product(airflow, pythons))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_only_what_publishes_may_do_more_than_read(workflow: str) -> None:
    assert yaml.safe_load(WORKFLOWS[workflow])["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in jobs(workflow).items() if "permissions" in job}
    assert rights == ({"publish": {"id-token": "write"}} if workflow == "release.yml" else {})


def test_only_what_ci_has_tested_is_published() -> None:
    publish = jobs("release.yml")["publish"]
    assert (publish["needs"], publish["environment"]) == ("ci", "release")
    assert not any("checkout" in step.get("uses", "") for step in publish["steps"])
