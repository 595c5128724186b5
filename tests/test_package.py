from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from importlib.metadata import entry_points, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import airflow_provider_whatsapp
from airflow_provider_whatsapp.get_provider_info import get_provider_info

PROJECT = Path(__file__).parent.parent
DOCUMENTATION = "https://airflow-provider-whatsapp.readthedocs.io/"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


# Each step runs in the same process and reports which modules it has loaded. Airflow itself comes first, so that the
# modules that it loads are not blamed on this package.
STEPS = {
    "airflow": "import airflow.sdk, airflow.sdk.log, airflow.triggers.base",
    "dag file": """
import airflow_provider_whatsapp.operators.whatsapp, airflow_provider_whatsapp.sensors.whatsapp
import airflow_provider_whatsapp.triggers.whatsapp, airflow_provider_whatsapp.rows
""",
    "connection of airflow": "from airflow.sdk import Connection",
    "connection": """
from airflow_provider_whatsapp.hooks._connection import parse_connection
parse_connection(Connection(conn_id="x", conn_type="whatsapp", password="EAAx"))
""",
    "task": """
import os
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.sandbox import GraphSandbox
with GraphSandbox(accounts=3) as sandbox:
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = sandbox.connection
    assert len(WhatsAppHook().list_wabas()) == 3
""",
    "a.ndjson.gz": "write_and_read('a.ndjson.gz')",
    "a.csv": "write_and_read('a.csv')",
    "a.parquet": "write_and_read('a.parquet')",
}
PROGRAM = """
import json, sys
def write_and_read(name):
    from airflow_provider_whatsapp.storage.reader import ObjectReader
    from airflow_provider_whatsapp.storage.target import Target
    path = f"{folder}/{name}"
    with Target(path).stage([{"id": "1"}], ["id"]) as staged:
        staged.publish()
    assert [row["id"] for row in ObjectReader("waba_ids", path).rows()] == ["1"]
loaded = {}
for step, code in steps.items():
    before = set(sys.modules)
    exec(code)
    loaded[step] = sorted(set(sys.modules) - before)
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The modules that each step of a worker process loads."""
    folder = str(tmp_path_factory.mktemp("loaded"))
    printed = run_python(f"steps, folder = {STEPS!r}, {folder!r}\n{PROGRAM}").splitlines()[-1]
    return {step: set(modules) for step, modules in json.loads(printed).items()}


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_webhooks_stand_alone() -> None:
    code = "import sys\nbefore = set(sys.modules)\nimport airflow_provider_whatsapp.webhooks\nprint(*set(sys.modules) - before)"
    modules = set(run_python(code).split())
    assert {module for module in roots(modules) if module not in sys.stdlib_module_names} == {
        "airflow_provider_whatsapp"
    }
    assert {module for module in modules if module.startswith("airflow_provider_whatsapp.")} == {
        "airflow_provider_whatsapp.webhooks"
    }
    assert not {"socket", "ssl", "asyncio", "http.client", "urllib.request"} & modules


def test_a_dag_file_loads_no_library(loaded: dict[str, set[str]]) -> None:
    modules = loaded["dag file"]
    assert roots(modules) <= {"airflow_provider_whatsapp", "airflow", *sys.stdlib_module_names}
    transport = {module for module in modules if module.startswith("airflow_provider_whatsapp.transport.")}
    assert transport <= {"airflow_provider_whatsapp.transport.clock"}


def test_reading_a_connection_loads_no_http_library(loaded: dict[str, set[str]]) -> None:
    assert not {"requests", "urllib3", "httpx", "httpcore", "pyarrow", "fsspec"} & roots(loaded["connection"])


def test_a_task_loads_one_http_library(loaded: dict[str, set[str]]) -> None:
    modules = loaded["task"]
    assert "airflow_provider_whatsapp.transport.sync" in modules
    assert not {"httpx", "httpcore", "pyarrow", "fsspec"} & roots(modules)


@pytest.mark.parametrize(("name", "is_loaded"), [("a.ndjson.gz", False), ("a.csv", False), ("a.parquet", True)])
def test_only_parquet_loads_pyarrow(loaded: dict[str, set[str]], name: str, is_loaded: bool) -> None:
    assert ("pyarrow" in roots(loaded[name])) is is_loaded


def test_the_version_is_one() -> None:
    assert version("airflow-provider-whatsapp") == airflow_provider_whatsapp.__version__
    assert f"## {airflow_provider_whatsapp.__version__}" in (PROJECT / "CHANGELOG.md").read_text()


def test_airflow_brings_what_the_package_requires() -> None:
    """Installing the package changes nothing in an environment that has Airflow."""
    brought: set[str] = set()
    waiting = ["apache-airflow"]
    while waiting:
        if (name := canonicalize_name(waiting.pop())) not in brought:
            brought.add(name)
            waiting += [one.name for one in required_by(name)]
    assert {canonicalize_name(one.name) for one in required_by("airflow-provider-whatsapp")} <= brought


def required_by(name: str) -> list[Requirement]:
    found = map(Requirement, requires(name) or [])
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def test_the_package_is_typed() -> None:
    assert files(airflow_provider_whatsapp).joinpath("py.typed").is_file()


def test_the_entry_point_leads_to_the_declaration() -> None:
    (entry,) = [
        e
        for e in entry_points(group="apache_airflow_provider")
        if e.dist and e.dist.name == "airflow-provider-whatsapp"
    ]
    assert entry.load() is get_provider_info


def test_the_declaration_fits_the_schemas_that_airflow_ships() -> None:
    import airflow
    from jsonschema import Draft7Validator

    info = get_provider_info()
    core = Path(airflow.__file__).parent
    Draft7Validator(json.loads((core / "provider_info.schema.json").read_text())).validate(info)
    development = json.loads((core / "provider.yaml.schema.json").read_text())
    connection_types = {
        **development["properties"]["connection-types"],
        "definitions": development.get("definitions", {}),
    }
    if "conn-fields" in json.dumps(connection_types):  # since Airflow 3.2
        Draft7Validator(connection_types).validate(info["connection-types"])


def test_airflow_finds_the_provider() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()  # type: ignore[no-untyped-call]  # of Airflow
    provider = manager.providers["airflow-provider-whatsapp"]
    assert provider.version == airflow_provider_whatsapp.__version__
    # Some versions of Airflow do not read the address, and some keep the blank before it.
    assert provider.data.get("documentation-url", DOCUMENTATION).strip() == DOCUMENTATION
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in 3.2, but the only way in 3.1
        hook: Any = manager.hooks["whatsapp"]
    assert hook.hook_class_name == "airflow_provider_whatsapp.hooks.whatsapp.WhatsAppHook"
    assert hook.connection_testable


def test_everything_declared_can_be_imported() -> None:
    info = get_provider_info()
    modules = [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for entry in info[kind]
        for module in entry["python-modules"]
    ]
    for module in modules:
        importlib.import_module(module)


def test_the_form_of_airflow_3_1_is_that_of_the_declaration() -> None:
    declared = get_provider_info()["connection-types"][0]
    from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook

    assert WhatsAppHook.get_ui_field_behaviour() == {
        "hidden_fields": declared["ui-field-behaviour"]["hidden-fields"],
        "relabeling": declared["ui-field-behaviour"]["relabeling"],
        "placeholders": declared["ui-field-behaviour"]["placeholders"],
    }
    pytest.importorskip("wtforms")
    widgets = WhatsAppHook.get_connection_form_widgets()
    kinds = {name: widget.field_class.__name__ for name, widget in widgets.items()}
    assert kinds == {
        name: "PasswordField" if field["schema"].get("format") == "password" else "StringField"
        for name, field in declared["conn-fields"].items()
    }


@pytest.mark.skipif(version("apache-airflow") == "3.1.0", reason="Airflow 3.1.0 shows no fields without wtforms")
def test_airflow_shows_the_form() -> None:
    # This runs in a subprocess, because Airflow 3.1 replaces wtforms with stubs in a process that has loaded the hooks.
    shown = run_python(
        "from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService as S\n"
        "form = next(meta for meta in S.hook_meta_data() if meta.connection_type == 'whatsapp')\n"
        "print(form.hook_name, *sorted(form.extra_fields or {}), sep='|')"
    ).splitlines()[-1]
    declared = get_provider_info()["connection-types"][0]
    assert shown.split("|") == [declared["hook-name"], *sorted(declared["conn-fields"])]


def test_the_link_is_registered() -> None:
    from airflow_provider_whatsapp.links.whatsapp import WhatsAppManagerLink

    (path,) = get_provider_info()["extra-links"]
    assert path == f"{WhatsAppManagerLink.__module__}.{WhatsAppManagerLink.__qualname__}"
