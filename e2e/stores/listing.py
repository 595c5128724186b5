"""Lists the accounts to an object in a process of its own, which can be killed, as one try of a task instance.

It keeps the rows of each page beside the object. The arguments are the address of the object and the number of the try.
It prints the manifest.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import s3fs

from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator

WhatsAppListWabasOperator.checkpoint_interval = 0.0
# A store that hangs would otherwise be waited for five times.
s3fs.S3FileSystem.retries = 2


def main() -> None:
    """List the accounts."""
    path, number = sys.argv[1:]
    ti = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="accounts",
        map_index=-1,
        is_mapped=False,
        try_number=int(number),
        max_tries=1,
    )
    operator = WhatsAppListWabasOperator(
        task_id="accounts", fields="id,name", output_path=path, output_conn_id="lake", max_wait_in_place=0
    )
    print(json.dumps(operator.execute({"ti": ti})))  # type: ignore[typeddict-item]


if __name__ == "__main__":
    main()
