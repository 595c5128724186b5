"""DAGs with a retry policy, which Airflow has since version 3.3. The tests fill in the params."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

try:
    from airflow_provider_whatsapp.retry import GraphRetryPolicy
except ImportError:  # before Airflow 3.3
    pass
else:
    COMMON: dict[str, Any] = {"start_date": pendulum.datetime(2026, 1, 1, tz="UTC")}
    DEFAULTS: dict[str, Any] = {"retries": 1, "retry_policy": GraphRetryPolicy()}

    with DAG("policy_on_operator", schedule=None, default_args=DEFAULTS, **COMMON) as policy_on_operator:
        WhatsAppListWabasOperator(task_id="accounts", fields="id")

    with DAG("policy_on_partial", schedule=None, **COMMON) as policy_on_partial:
        WhatsAppListWabasOperator.partial(task_id="accounts", fields="id", **DEFAULTS).expand(
            relationship=["client", "owned"]
        )

    with DAG("policy_on_task", schedule=None, **COMMON) as policy_on_task:

        @task(**DEFAULTS)
        def accounts() -> list[dict[str, Any]]:
            try:
                return WhatsAppHook().list_wabas(fields="id")
            except Exception as error:
                raise RuntimeError("the accounts cannot be listed") from error

        accounts()
