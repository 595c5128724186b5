"""The same loop with ``httpx``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PACKAGE = "httpx"


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Follow ``paging.next`` and write each row as a line."""
    import httpx

    def read() -> None:
        url = f"{host}/v26.0/{business}/client_whatsapp_business_accounts?fields={fields}&limit=100"
        with httpx.Client(timeout=30, headers={"Authorization": f"Bearer {token}"}) as client, path.open("w") as file:
            while url:
                response = client.get(url)
                response.raise_for_status()
                page = response.json()
                for row in page["data"]:
                    file.write(json.dumps(row) + "\n")
                url = page.get("paging", {}).get("next")

    return read
