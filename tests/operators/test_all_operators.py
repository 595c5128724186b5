"""What holds for every operator and sensor of the provider."""

from __future__ import annotations

import inspect
import re
from datetime import timedelta
from typing import Any, ClassVar

import airflow
import pytest
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator
from packaging.version import Version

from airflow_provider_whatsapp.operators import whatsapp as operators
from airflow_provider_whatsapp.sensors import whatsapp as sensors
from airflow_provider_whatsapp.tasks.airflow_arguments import OperatorArguments, SensorArguments

#: Each operator and sensor, with the arguments that it cannot do without.
REQUIRED: dict[Any, dict[str, Any]] = {
    operators.WhatsAppListWabasOperator: {},
    operators.WhatsAppListWabaEdgeOperator: {"waba_ids": ["1"], "edge": "flows"},
    sensors.WhatsAppWabasSensor: {},
}


@pytest.fixture(params=REQUIRED, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_each_operator_and_sensor_is_here() -> None:
    public = [getattr(module, name) for module in (operators, sensors) for name in module.__all__]
    assert set(public) == set(REQUIRED)


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
    for kind in REQUIRED:
        for name, text in re.findall(r":param (\w+): (.*?)(?=\n    :param|\Z)", kind.__doc__, re.DOTALL):
            described.setdefault(name, set()).add(" ".join(text.split()))
    differing = {name for name, texts in described.items() if len(texts) > 1}
    # What they mean depends on what is listed.
    assert differing == {
        "waba_ids",
        "deferrable",
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


def test_default_args(kind: Any) -> None:
    # `max_wait` is an argument of every sensor and of no operator.
    defaults = {
        "fields": "id", "page_size": 7, "whatsapp_conn_id": "other", "retries": 4, "max_wait": timedelta(minutes=5),
        "max_wait_in_place": 11,
    }  # fmt: skip
    with DAG("d", schedule=None, default_args=defaults):
        task = kind(task_id="a", page_size=9, **REQUIRED[kind])
    assert (task.fields, task.page_size, task.whatsapp_conn_id, task.retries) == ("id", 9, "other", 4)
    assert getattr(task, "max_wait", timedelta(minutes=5)) == timedelta(minutes=5)
    assert getattr(task, "max_wait_in_place", 11) == 11


def test_a_misspelled_argument(kind: Any) -> None:
    with pytest.raises(TypeError, match="feilds"):
        kind(task_id="a", feilds="id", **REQUIRED[kind])
    with pytest.raises(TypeError, match="feilds"):
        kind.partial(task_id="a", feilds="id")


def test_a_subclass_with_arguments_of_its_own(kind: Any) -> None:
    class Own(kind):
        template_fields = (*kind.template_fields, "region")

        def __init__(self, *, region: str, **kwargs: Any) -> None:
            super().__init__(page_size=3, **kwargs)
            self.region = region

    with DAG("d", schedule=None, default_args={"region": "EU", "fields": "id"}):
        task = Own(task_id="a", **REQUIRED[kind])
    assert (task.region, task.fields, task.page_size) == ("EU", "id", 3)


def test_it_can_be_mapped(kind: Any) -> None:
    with DAG("d", schedule=None):
        mapped = kind.partial(task_id="mapped", fields="id", **REQUIRED[kind]).expand(page_size=[1, 2])
    assert tuple(mapped.template_fields) == kind.template_fields


def test_rendering_changes_no_argument(kind: Any, connected: Any, tmp_path: Any) -> None:
    arguments = {**REQUIRED[kind], "fields": " ", "whatsapp_conn_id": "None", "output_path": f"{tmp_path}/a.json"}
    if "waba_ids" in arguments:
        arguments["waba_ids"] = [connected.accounts[0]["id"]]
    task = kind(task_id="a", **arguments)
    before = {name: getattr(task, name) for name in own_arguments(kind)}
    task.execute({})
    assert {name: getattr(task, name) for name in before} == before


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
