"""The arguments of every operator and sensor of the provider."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import airflow
import lazy_object_proxy
import pytest
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, TaskGroup
from listings import LISTINGS, Listing
from packaging.version import Version

from airflow_provider_whatsapp._compat import AirflowFailException
from airflow_provider_whatsapp.operators import whatsapp as operators
from airflow_provider_whatsapp.sensors import whatsapp as sensors
from airflow_provider_whatsapp.tasks.airflow_arguments import OperatorArguments, SensorArguments
from airflow_provider_whatsapp.tasks.arguments import OutputArguments


def test_each_operator_and_sensor_is_here() -> None:
    public = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]
    assert {each.kind for each in LISTINGS} == set(public)


@pytest.fixture(params=[each.kind for each in LISTINGS], ids=lambda kind: str(kind.__name__))
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("given_in", ["partial", "default_args of the DAG", "default_args of a task group"])
@pytest.mark.parametrize("path", ["/lake/a.ndjson", "/lake/{{ task.business_id }}.ndjson"])
def test_mapped_tasks_with_one_address(kind: Any, given_in: str, path: str) -> None:
    path_for: dict[str, dict[str, Any]] = {given_in: {"output_path": path}}
    required = {"waba_ids": "1", "edge": "phone_numbers"} if kind is operators.WhatsAppListWabaEdgeOperator else {}
    with (
        DAG("mapped", schedule=None, default_args=path_for.get("default_args of the DAG", {})),
        TaskGroup("group", default_args=path_for.get("default_args of a task group", {})),  # type: ignore[arg-type]  # attrs
    ):
        mapped = kind.partial(task_id="list", **required, **path_for.get("partial", {})).expand(fields=["id", "name"])
    task = mapped.unmap({"fields": "id"})
    assert task.output_path == path
    if "{{" in path:
        task.output_path = "/lake/rendered.ndjson"
        assert OutputArguments.of(task).path == "/lake/rendered.ndjson"
    else:
        with pytest.raises(ValueError, match="^output_path: every mapped task would write the same object"):
            OutputArguments.of(task)


def own_arguments(kind: Any) -> dict[str, inspect.Parameter]:
    """The arguments in the signature that type checkers, ``help()`` and the documentation show."""
    *own, rest = list(inspect.signature(kind).parameters.values())
    assert rest.kind is inspect.Parameter.VAR_KEYWORD
    assert rest.annotation in ("Unpack[OperatorArguments]", "Unpack[SensorArguments]")
    return {parameter.name: parameter for parameter in own}


def test_every_argument_has_a_type_and_a_description(kind: Any) -> None:
    arguments = own_arguments(kind)
    for name, parameter in arguments.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameter.annotation not in (inspect.Parameter.empty, "Any"), name
        assert name == "deferrable" or "XComArg" in parameter.annotation, name
    assert re.findall(r":param (\w+):", kind.__doc__) == list(arguments)


def test_the_same_argument_is_described_alike() -> None:
    described: dict[str, set[str]] = {}
    for kind in (each.kind for each in LISTINGS):
        for name, text in re.findall(r":param (\w+): (.*?)(?=\n    :param|\Z)", kind.__doc__, re.DOTALL):
            described.setdefault(name, set()).add(" ".join(text.split()))
    differing = {name for name, texts in described.items() if len(texts) > 1}
    # What they mean depends on what is listed.
    assert differing == {
        "waba_ids",
        "deferrable",
        "max_usage",
        "fields",
        "filtering",
        "sort",
        "page_size",
        "max_items",
        "output_path",
        "if_empty",
    }


def test_every_argument_that_can_vary_by_run_is_templated(kind: Any) -> None:
    assert sorted(kind.template_fields) == sorted(own_arguments(kind).keys() - {"deferrable"})
    assert set(kind.template_fields_renderers) <= set(kind.template_fields)


def test_an_argument_is_an_attribute(kind: Any) -> None:
    values = {name: f"given {name}" for name in own_arguments(kind)}
    task = kind(task_id="a", **values)
    assert {name: getattr(task, name) for name in values} == values


def test_default_args(listing: Listing) -> None:
    # `max_wait` is an argument of every sensor and of no operator, and `max_wait_in_place` the other way round.
    defaults = {
        "fields": "id", "page_size": 7, "whatsapp_conn_id": "other", "retries": 4, "max_wait": timedelta(minutes=5),
        "max_wait_in_place": 11,
    }  # fmt: skip
    with DAG("d", schedule=None, default_args=defaults):
        task = listing.kind(task_id="a", page_size=9, **listing.required)
    assert (task.fields, task.page_size, task.whatsapp_conn_id, task.retries) == ("id", 9, "other", 4)
    assert getattr(task, "max_wait", timedelta(minutes=5)) == timedelta(minutes=5)
    assert getattr(task, "max_wait_in_place", 11) == 11


def test_a_misspelled_argument(listing: Listing) -> None:
    with pytest.raises(TypeError, match="feilds"):
        listing.kind(task_id="a", feilds="id", **listing.required)
    with pytest.raises(TypeError, match="feilds"):
        listing.kind.partial(task_id="a", feilds="id")


def test_a_subclass_with_arguments_of_its_own(listing: Listing) -> None:
    kind = listing.kind

    class Own(kind):  # type: ignore[misc, valid-type]
        template_fields = (*kind.template_fields, "region")

        def __init__(self, *, region: str, **kwargs: Any) -> None:
            super().__init__(page_size=3, **kwargs)
            self.region = region

    with DAG("d", schedule=None, default_args={"region": "EU", "fields": "id"}):
        task: Any = Own(task_id="a", **listing.required)
    assert (task.region, task.fields, task.page_size) == ("EU", "id", 3)


def test_it_can_be_mapped(listing: Listing) -> None:
    with DAG("d", schedule=None):
        mapped = listing.kind.partial(task_id="mapped", fields="id", **listing.required).expand(page_size=[1, 2])
    assert tuple(mapped.template_fields) == listing.kind.template_fields


def test_rendering_changes_no_argument(listing: Listing, target: Path) -> None:
    task = listing.build(fields=" ", whatsapp_conn_id="None", output_path=str(target))
    before = {name: getattr(task, name) for name in own_arguments(listing.kind)}
    listing.give(task, {})
    assert {name: getattr(task, name) for name in before} == before


@pytest.mark.parametrize("blank", ["", " ", "None"])
def test_a_template_without_a_value_counts_as_not_given(listing: Listing, target: Path, blank: str) -> None:
    # Left out, these have a default or another meaning; as blanks they are an error.
    without = {"waba_ids", "edge", "business_id", "where", "output_path", "compare_with"}
    optional = dict.fromkeys(set(listing.kind.template_fields) - without, blank)
    plain, blanks = (listing.kind(task_id="a", **listing.required, **given) for given in ({}, optional))
    assert listing.give(blanks, {}) == listing.give(plain, {})
    plain.output_path = blanks.output_path = str(target)
    assert listing.give(blanks, {}) == listing.give(plain, {})


def test_a_value_that_airflow_looks_up_late_counts_as_not_given_when_it_is_none(listing: Listing) -> None:
    with DAG("native", schedule=None, render_template_as_native_obj=True):
        task = listing.build(max_items="{{ prev_start_date_success }}")
    task.render_template_fields({"prev_start_date_success": lazy_object_proxy.Proxy(lambda: None)})
    assert task.max_items is not None
    assert listing.give(task, {}) == listing.rows


COMMON_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"fields": ","}, "fields"),
    ({"filtering": [{}]}, "filtering"),
    ({"sort": "by name"}, "sort"),
    ({"page_size": 0}, "page_size"),
    ({"max_items": "all"}, "max_items"),
    ({"output_path": ""}, "output_path"),
    ({"output_path": "None"}, "output_path"),
    ({"output_path": "s3://bucket/a.ndjson"}, "output_path"),
    ({"output_path": "/tmp/a.xml"}, "output_path"),
    ({"output_path": "/tmp/a.parquet.gz"}, "output_path"),
    ({"output_format": "csv"}, "output_path"),
    ({"output_conn_id": "lake"}, "output_path"),
    ({"output_path": "/tmp/a.ndjson", "output_format": "xml"}, "output_format"),
]
MISTAKES_OF_OPERATORS: list[tuple[dict[str, Any], str]] = [
    ({"if_exists": "other"}, "if_exists"),
    ({"if_empty": False}, "if_empty"),
    ({"max_usage": 0}, "max_usage"),
    ({"max_usage": "many"}, "max_usage"),
    ({"max_wait_in_place": -1}, "max_wait_in_place"),
    ({"compare_with": "/a.ndjson"}, "compare_with"),
]
MISTAKES_OF_ACCOUNTS: list[tuple[dict[str, Any], str]] = [
    ({"business_id": "../me"}, "business_id"),
    ({"business_id": ""}, "business_id"),
    ({"business_id": "None"}, "business_id"),
    ({"relationship": "other"}, "relationship"),
    ({"created_after": "soon"}, "created_after"),
]


def test_bad_input_fails_at_once_before_anything_is_sent(listing: Listing) -> None:
    mistakes = [*COMMON_MISTAKES, *MISTAKES_OF_OPERATORS, *MISTAKES_OF_ACCOUNTS]
    taken = [one for one in mistakes if set(one[0]) <= set(listing.kind.template_fields)]
    assert len(taken) >= len(COMMON_MISTAKES) + 5
    for arguments, name in taken:
        with pytest.raises(AirflowFailException, match=f"^{name}: ") as caught:
            listing.run(**arguments)
        assert isinstance(caught.value.__cause__, ValueError)
    assert listing.sandbox.connections == 0


def test_a_token_in_the_wrong_argument_is_not_shown(
    listing: Listing, caplog: pytest.LogCaptureFixture, target: Path
) -> None:
    # Names of connections are shown, and the API alone knows the types of ownership.
    without = {"whatsapp_conn_id", "output_conn_id", "ownership_types"}
    for name in set(listing.kind.template_fields) - without:
        output = {"output_path": str(target)} if name in ("compare_with", "output_format") else {}
        with pytest.raises(AirflowFailException, match=f"^{name}: ") as caught:
            listing.run(**output, **{name: f"{listing.sandbox.token}!"})
        assert listing.sandbox.token not in str(caught.value)
    assert listing.sandbox.token not in caplog.text
    assert listing.sandbox.connections == 0


def test_an_unusable_connection_fails_at_once(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", '{"conn_type": "whatsapp", "extra": {"business_id": "1"}}')
    with pytest.raises(AirflowFailException, match="^connection 'whatsapp_default', password: empty"):
        listing.run()


def test_deferring_is_a_setting_of_airflow() -> None:
    kinds = [each.kind for each in LISTINGS]
    assert {inspect.signature(kind).parameters["deferrable"].default for kind in kinds} == {False}
    # The setting is read when the module is imported.
    imports = "".join(f"from {kind.__module__} import {kind.__name__}\n" for kind in kinds)
    shown = "".join(f"print(inspect.signature({kind.__name__}).parameters['deferrable'].default)\n" for kind in kinds)
    done = subprocess.run(
        [sys.executable, "-c", f"import inspect\n{imports}{shown}"],
        env={**os.environ, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split()[-len(kinds) :] == ["True"] * len(kinds)


class TestAirflowArguments:
    """The arguments that Airflow defines are those of this version of Airflow."""

    # Since 3.2 and 3.3.
    LATER: ClassVar = {"render_template_as_native_obj": "3.2", "retry_policy": "3.3"}

    def test_of_operators(self) -> None:
        later = {name for name, version in self.LATER.items() if Version(airflow.__version__) < Version(version)}
        assert self.arguments_of(BaseOperator) == set(OperatorArguments.__annotations__) - later

    def test_of_sensors(self) -> None:
        own = set(SensorArguments.__annotations__) - set(OperatorArguments.__annotations__)
        assert self.arguments_of(BaseSensorOperator) == own

    def arguments_of(self, kind: Any) -> set[str]:
        return set(inspect.signature(inspect.unwrap(kind.__init__)).parameters) - {"self", "kwargs"}


@pytest.mark.parametrize("blank", ["", " ", "None"])
def test_an_earlier_object_without_an_address(operator: Listing, target: Path, blank: str) -> None:
    with pytest.raises(AirflowFailException, match="^compare_with: "):
        operator.run(output_path=str(target), compare_with=blank)
    assert operator.sandbox.connections == 0


def test_a_proxy_that_cannot_be_used(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", '{"conn_type": "whatsapp", "password": "EAAx"}')
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(AirflowFailException, match="^HTTPS_PROXY: "):
        listing.run(**({"business_id": "5"} if listing.noun == "accounts" else {}))
