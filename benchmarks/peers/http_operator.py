"""Airflow's ``HttpOperator`` with a ``pagination_function``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "apache-airflow-providers-http"
NEEDS_AIRFLOW = True


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Collect all answers and write their rows in the ``response_filter``."""
    from urllib.parse import parse_qs, urlsplit

    from airflow.providers.http.operators.http import HttpOperator

    os.environ["AIRFLOW_CONN_GRAPH"] = json.dumps({"conn_type": "http", "host": host})

    def next_page(response: Any) -> dict[str, Any] | None:
        following = response.json().get("paging", {}).get("next")
        return following and {"data": {"after": parse_qs(urlsplit(following).query)["after"][0]}}

    def write(responses: list[Any]) -> int:
        with path.open("w") as file:
            for response in responses:
                for row in response.json()["data"]:
                    file.write(json.dumps(row) + "\n")
        return len(responses)

    accounts = HttpOperator(
        task_id="accounts",
        http_conn_id="graph",
        method="GET",
        endpoint=f"v26.0/{business}/client_whatsapp_business_accounts",
        data={"fields": fields, "limit": "100"},
        headers={"Authorization": f"Bearer {token}"},
        pagination_function=next_page,
        response_filter=write,
    )
    return lambda: accounts.execute({})
