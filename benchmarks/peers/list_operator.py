"""The operator of this package, in a process that has loaded what Airflow loads for every task."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

PACKAGE = "airflow-provider-whatsapp"
NEEDS_AIRFLOW = True


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Execute the operator. The suffix of the path decides on the format."""
    connection = {"conn_type": "whatsapp", "host": host, "password": token, "extra": {"api_version": "v26.0"}}
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = json.dumps(connection)

    from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

    operator = WhatsAppListWabasOperator(task_id="accounts", business_id=business, fields=fields, output_path=str(path))
    return lambda: operator.execute({})
