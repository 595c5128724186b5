"""A plain loop with ``requests``, which all others are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PACKAGE = "requests"


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Follow ``paging.next`` and write each row as a line."""
    import requests

    def read() -> None:
        url = f"{host}/v26.0/{business}/client_whatsapp_business_accounts?fields={fields}&limit=100"
        with requests.Session() as session, path.open("w") as file:
            session.headers["Authorization"] = f"Bearer {token}"
            while url:
                response = session.get(url, timeout=30)
                response.raise_for_status()
                page = response.json()
                for row in page["data"]:
                    file.write(json.dumps(row) + "\n")
                url = page.get("paging", {}).get("next")

    return read
