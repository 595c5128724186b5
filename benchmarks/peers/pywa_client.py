"""pywa, a client of the WhatsApp Cloud API. It chooses the fields itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

PACKAGE = "pywa"


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Go through the pages of a result and write each object as a line."""
    import httpx
    from pywa import WhatsApp
    from pywa.types import Pagination

    def read() -> None:
        with httpx.Client(timeout=30) as session, path.open("w") as file:
            client = WhatsApp(token=token, session=session, validate_updates=False)
            session.base_url = f"{host}/v26.0"
            result = client.get_shared_business_accounts(
                business_portfolio_id=business, pagination=Pagination(limit=100)
            )
            while True:
                for account in result:
                    file.write(json.dumps(asdict(account), default=str) + "\n")
                if not result.has_next:
                    break
                result = result.next()

    return read
