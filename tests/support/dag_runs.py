"""Runs DAGs in a real Airflow through ``dag.test()``. The fixture ``airflow_db`` prepares it."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pendulum

DAGS = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
NOON = pendulum.datetime(2026, 11, 22, 12, tz="UTC")


class Finished:
    """The states and XComs of a DAG run that has ended."""

    def __init__(self, run: Any) -> None:
        self.state = str(run.state)
        self._instances = {(ti.task_id, ti.map_index): ti for ti in run.get_task_instances()}
        self.states = {key: str(ti.state) for key, ti in self._instances.items()}

    def xcom(self, task_id: str, map_index: int = -1) -> Any:
        return self._instances[task_id, map_index].xcom_pull(task_ids=task_id, map_indexes=map_index)

    def label(self, task_id: str, map_index: int) -> str:
        """The label of a mapped task instance, which Airflow's grid shows instead of its map index."""
        return str(self._instances[task_id, map_index].rendered_map_index)

    def rendered(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        from airflow.models.renderedtifields import RenderedTaskInstanceFields

        fields = RenderedTaskInstanceFields.get_templated_fields(self._instances[task_id, map_index])
        assert fields is not None
        return fields


def find_dag(dag_id: str) -> Any:
    """The DAG with this id, of the examples and of the tests."""
    namespaces = (runpy.run_path(str(file)) for file in DAGS.rglob("*.py"))
    made = next(namespace[dag_id] for namespace in namespaces if dag_id in namespace)
    return made() if callable(made) else made


def run_dag(
    dag: Any,
    *,
    conf: dict[str, Any] | None = None,
    logical_date: pendulum.DateTime | None = NOON,
    run_after: pendulum.DateTime = NOON,
) -> Finished:
    """Run a DAG to its end.

    :param dag: the DAG or its id
    """
    dag = find_dag(dag) if isinstance(dag, str) else dag
    return Finished(dag.test(run_conf=conf, logical_date=logical_date, run_after=run_after))
