"""Runs DAGs in a real Airflow through ``dag.test()``. The fixture ``airflow_db`` prepares it."""

from __future__ import annotations

import os
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pendulum

PROJECT = Path(__file__).parents[2]
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


def load_dag(dag_id: str, file: Path) -> Any:
    """The DAG with this id of a file, which becomes the only file in Airflow's DAG folder.

    ``dag.test()`` parses and stores everything in that folder each time that it is called.
    """
    shutil.rmtree(DAGS, ignore_errors=True)
    DAGS.mkdir()
    made = runpy.run_path(str(shutil.copy(file, DAGS)))[dag_id]
    return made() if callable(made) else made


def find_dag(dag_id: str) -> Any:
    """The DAG with this id, of the examples and of the tests."""
    files = [*PROJECT.glob("example_dags/*.py"), *PROJECT.glob("tests/dags/*.py")]
    (file,) = [file for file in files if re.search(rf"(?m)^def {dag_id}\(|\) as {dag_id}:$", file.read_text())]
    return load_dag(dag_id, file)


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
