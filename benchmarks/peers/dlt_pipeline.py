"""dlt with its REST source and its destination for files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

PACKAGE = "dlt"


def prepare(host: str, business: int, path: Path, *, token: str, fields: str) -> Callable[[], object]:
    """Run a pipeline that follows ``paging.next`` and writes files of JSON lines."""
    import dlt
    from dlt.sources.rest_api import rest_api_source

    os.environ["DATA_WRITER__DISABLE_COMPRESSION"] = "true"
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

    def read() -> None:
        source = rest_api_source(
            {
                "client": {
                    "base_url": f"{host}/v26.0/",
                    "auth": {"type": "bearer", "token": token},
                    "paginator": {"type": "json_link", "next_url_path": "paging.next"},
                },
                "resources": [
                    {
                        "name": "accounts",
                        "max_table_nesting": 0,
                        "endpoint": {
                            "path": f"{business}/client_whatsapp_business_accounts",
                            "params": {"fields": fields, "limit": 100},
                            "data_selector": "data",
                        },
                    }
                ],
            }
        )
        pipeline = dlt.pipeline(
            "wabas",
            pipelines_dir=str(path.parent / "state"),
            destination=dlt.destinations.filesystem(bucket_url=str(path.parent / "lake")),
            dataset_name="wabas",
        )
        pipeline.run(source, loader_file_format="jsonl")
        with path.open("w") as file:
            for part in sorted((path.parent / "lake" / "wabas" / "accounts").glob("*.jsonl")):
                file.write(part.read_text())

    return read
