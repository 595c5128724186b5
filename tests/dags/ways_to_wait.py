"""DAGs that use the sensor in each of its modes. The tests fill in the params."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

COMMON: dict[str, Any] = {
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "params": {"ids": "", "folder": "/nowhere", "count": 3},
}
WAIT: dict[str, Any] = {
    "task_id": "wait",
    "min_count": "{{ params.count }}",
    "poke_interval": 0.2,
    "timeout": 20,
    "fields": "id,name",
}

with DAG("wait_poke", schedule=None, **COMMON) as wait_poke:
    WhatsAppWabasSensor(**WAIT, mode="poke")

with DAG("wait_reschedule", schedule=None, **COMMON) as wait_reschedule:
    WhatsAppWabasSensor(**WAIT, mode="reschedule")

with DAG("wait_deferrable", schedule=None, **COMMON) as wait_deferrable:
    WhatsAppWabasSensor(**WAIT, deferrable=True)

with DAG("wait_for_object", schedule=None, **COMMON) as wait_for_object:
    WhatsAppWabasSensor(
        task_id="wait",
        waba_ids="{{ params.ids }}",
        where={"id": "{{ params.ids }}"},
        output_path="{{ params.folder }}/{{ run_id }}.json",
        poke_interval=0.2,
        timeout=20,
        deferrable=True,
    )

with DAG("wait_softly", schedule=None, **COMMON) as wait_softly:
    for mode in ("poke", "reschedule", "deferrable"):
        WhatsAppWabasSensor(
            task_id=mode,
            min_count=999,
            poke_interval=0.2,
            timeout=0.5,
            soft_fail=True,
            mode="reschedule" if mode == "reschedule" else "poke",
            deferrable=mode == "deferrable",
        )

with DAG("wait_in_vain", schedule=None, **COMMON) as wait_in_vain:
    for mode in ("poke", "reschedule", "deferrable"):
        WhatsAppWabasSensor(
            task_id=mode,
            min_count=999,
            poke_interval=0.2,
            timeout=0.5,
            retries=2,
            mode="reschedule" if mode == "reschedule" else "poke",
            deferrable=mode == "deferrable",
        )
