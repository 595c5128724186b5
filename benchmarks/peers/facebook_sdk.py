"""Meta's own SDK."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

PACKAGE = "facebook-business"


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Iterate over the SDK's cursor and write each object as a line."""
    from facebook_business.adobjects.business import Business
    from facebook_business.api import FacebookAdsApi
    from facebook_business.session import FacebookSession

    FacebookSession.GRAPH = host

    def read() -> None:
        FacebookAdsApi.init(access_token=token, api_version="v26.0")
        accounts = Business(str(business)).get_client_whats_app_business_accounts(
            fields=fields.split(","), params={"limit": 100}
        )
        with path.open("w") as file:
            for account in accounts:
                file.write(json.dumps(account.export_all_data()) + "\n")

    return read
