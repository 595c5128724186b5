"""The metrics that a task sends, as a StatsD server receives them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_whatsapp.hooks._diagnosis import days_left
from airflow_provider_whatsapp.hooks._metrics import METRICS
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox

TASK = """
from inspect import signature
from airflow_provider_whatsapp._compat import TaskDeferred, load_stats
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor

stats = load_stats()
try:
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
except ImportError:  # Airflow 3.1 sets its metrics up when they are first used
    pass
else:  # Later versions do so before they run a task
    if signature(get_stats_factory).parameters:  # Airflow 3.2
        stats.initialize(factory=get_stats_factory(stats))
    else:
        stats.initialize(factory=get_stats_factory(), export_legacy_names=True)

stats.incr("other")
with no_waits():
    WhatsAppHook().debug_token()
    assert len(WhatsAppListWabasOperator(task_id="list").execute({})) == 250
    try:
        WhatsAppListWabasOperator(task_id="list", deferrable=True).execute({})
    except TaskDeferred:
        assert len(WhatsAppWabasSensor(task_id="wait").execute({})) == 250
"""


def test_what_a_task_sends(connected: GraphSandbox) -> None:
    connected.token_info = {"expires_at": int(time.time() + 86_400 * 3.005)}
    connected.fail_next(
        Fault.throttle(minutes=1).after(1),
        Fault.high_usage(42).after(1),
        Fault.closed(),
        Fault.throttle(minutes=9).after(1),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        environment = {
            **os.environ,
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(server.getsockname()[1]),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }
        subprocess.run([sys.executable, "-c", TASK], env=environment, check=True)
        received: Counter[str] = Counter()
        try:
            while True:
                received[server.recv(2000).decode()] += 1
        except BlockingIOError:  # The process that sends has ended.
            pass
    sent = {line: count for line, count in received.items() if "whatsapp" in line}
    (waited,) = [line for line in sent if "waited_seconds" in line]
    assert int(waited.rpartition(":")[2].removesuffix("|c")) >= 60
    tag = "conn_id=whatsapp_default"
    assert sent[f"airflow.whatsapp.api_usage,{tag}:42.0|g"] == 1
    assert sent[f"airflow.whatsapp.api_usage,{tag}:100.0|g"] == 2
    assert {line: count for line, count in sent.items() if line != waited and "api_usage" not in line} == {
        f"airflow.whatsapp.requests,{tag}:1|c": 10,
        f"airflow.whatsapp.errors,{tag},error=GraphRateLimitError:1|c": 2,
        f"airflow.whatsapp.errors,{tag},error=GraphTransportError:1|c": 1,
        f"airflow.whatsapp.throttled,{tag}:1|c": 2,
        f"airflow.whatsapp.rows,{tag}:250|c": 2,
        f"airflow.whatsapp.deferrals,{tag}:1|c": 1,
        f"airflow.whatsapp.token_days_left,{tag}:3.0|g": 1,
    }
    assert {line.removeprefix("airflow.").partition(",")[0] for line in sent} == METRICS.keys()


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({"expires_at": 0}, None), ({"expires_at": 0, "data_access_expires_at": 0}, None), ({"expires_at": 86_400}, 1),
        ({"expires_at": 86_400 * 9, "data_access_expires_at": 86_400}, 1), ({"expires_at": -5}, 0), ({"is_valid": False}, 0),
        ({"expires_at": "soon"}, None), ({"expires_at": 0, "data_access_expires_at": 43_200}, 0.5),
    ],
)  # fmt: skip
def test_how_many_days_a_token_has_left(changes: dict[str, Any], days: float | None) -> None:
    assert days_left({"is_valid": True, **changes}, datetime.fromtimestamp(0, timezone.utc)) == days
