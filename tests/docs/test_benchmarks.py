"""The tables of ``docs/benchmarks.md`` have the programs that the benchmark runs, and come from one of its runs."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PEERS = sorted(path.stem for path in (ROOT / "benchmarks" / "peers").glob("*.py") if path.stem != "__init__")
PAGE = ROOT / "docs" / "benchmarks.md"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures() -> dict[str, Any]:
    costs = [
        {
            "peer": peer,
            "size": size,
            "cpu_x": 2.0 + number,
            "cpu": 2.0 + number,
            "loading": 0.5,
            "megabytes": 7.0,
            "connections": 1,
        }
        for size in (10, 20, 30, 40)
        for number, peer in enumerate(PEERS)
    ]
    return {
        "machine": "Python 3.11, 2 cores",
        "versions": {peer: f"{peer} 1.0" for peer in PEERS},
        "costs": costs,
        "waits": [
            {"peer": peer, "latency": latency, "wall_x": 1.5, "of_server": 1.01}
            for latency in (0.02, 0.2)
            for peer in PEERS
        ],
        "faults": [{"peer": peer, "fault": "a fault", "outcome": "complete"} for peer in PEERS],
        "growth": [{"size": 1000, "suffix": "ndjson", "cpu": 0.5, "wall": 0.6, "megabytes": 7.0}],
    }


def test_the_tables_and_the_chart_are_replaced(report: ModuleType, tmp_path: Path) -> None:
    shutil.copy(PAGE, tmp_path)
    report.write_docs(figures(), tmp_path)
    once = (tmp_path / PAGE.name).read_text()
    report.write_docs(figures(), tmp_path)
    assert (tmp_path / PAGE.name).read_text() == once
    assert "| accounts | format |" in once
    assert "| 1,000 | `.ndjson` | 0.50 | 500.0 |" in once
    assert "Python 3.11, 2 cores; dlt_pipeline 1.0" in once
    chart = (tmp_path / "benchmarks.svg").read_text()
    assert chart.count("<rect") == 1 + len(PEERS)
    assert "1.00</text>" in chart


def test_a_page_without_a_place_for_a_table_is_an_error(report: ModuleType, tmp_path: Path) -> None:
    (tmp_path / PAGE.name).write_text("<!-- costs -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="no place for the table 'waits'"):
        report.write_docs(figures(), tmp_path)


def test_every_program_is_in_the_tables_of_the_documentation(report: ModuleType) -> None:
    assert sorted(report.NAMES) == PEERS
    tables = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    for name, table in tables:
        if name not in ("growth", "versions"):
            assert all(f"| {report.NAMES[peer]} |" in table for peer in PEERS), name
