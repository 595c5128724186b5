"""The hook of this package, with the rows written as a script would write them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

PACKAGE = "airflow-provider-whatsapp"
NEEDS_AIRFLOW = True


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Iterate over the accounts and write each as a line."""
    connection = {"conn_type": "whatsapp", "host": host, "password": token, "extra": {"api_version": "v26.0"}}
    os.environ["AIRFLOW_CONN_WHATSAPP_DEFAULT"] = json.dumps(connection)

    from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook

    def read() -> None:
        with path.open("w") as file:
            for row in WhatsAppHook().iter_wabas(business, fields=fields):
                file.write(json.dumps(row) + "\n")

    return read
