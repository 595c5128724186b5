from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

# Airflow reads its settings when it is first imported, so they are set before any other import.
_HOME = tempfile.mkdtemp(prefix="airflow-whatsapp-tests-")
for _name in [
    name for name in os.environ if name.upper().startswith(("AIRFLOW_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"))
]:
    del os.environ[_name]
os.environ.update(
    AIRFLOW_HOME=_HOME,
    AIRFLOW__CORE__DAGS_FOLDER=f"{_HOME}/dags",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_HOME}/airflow.db",
)

from airflow_provider_whatsapp.sandbox import GraphSandbox  # noqa: E402

# On a busy machine a single example can take long, so hypothesis must not fail it for its time.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

PROJECT = Path(__file__).parent.parent


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def sandbox() -> Iterator[GraphSandbox]:
    """A sandbox with three pages of client accounts."""
    with GraphSandbox(accounts=250, owned_accounts=30) as sandbox:
        yield sandbox


@pytest.fixture
def connected(sandbox: GraphSandbox, monkeypatch: pytest.MonkeyPatch) -> GraphSandbox:
    """The same sandbox, reached through the Airflow connection ``whatsapp_default``."""
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
    return sandbox


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's database, created once for all tests that run a DAG."""
    from airflow.utils.db import initdb

    initdb()
    # The first release of Airflow 3.1 tests only DAGs that are in the database, and later ones put them there.
    if version("apache-airflow") == "3.1.0":
        for name in ("example_dags", "tests/dags"):
            # This DAG watches an asset, for which Airflow 3.3 is needed. Earlier versions refuse its file.
            too_new = shutil.ignore_patterns("welcome_new_wabas.py")
            shutil.copytree(PROJECT / name, Path(_HOME, "dags", name), ignore=too_new)
        subprocess.run([sys.executable, "-m", "airflow", "dags", "reserialize"], check=True, capture_output=True)
