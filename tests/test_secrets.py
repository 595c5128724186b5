"""No secret is shown anywhere, in any fault, with all loggers at their lowest level and Airflow's masking off."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk import DAG
from virtual_time import run_virtually

from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.messages import Request
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators.whatsapp import WhatsAppListWabaEdgeOperator, WhatsAppListWabasOperator
from airflow_provider_whatsapp.sandbox import Fault, GraphSandbox, no_waits
from airflow_provider_whatsapp.sensors.whatsapp import WhatsAppWabasSensor
from airflow_provider_whatsapp.triggers.whatsapp import WhatsAppWabasTrigger

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferred  # type: ignore[no-redef]

SECRET = "5ecre7" * 5
# A little larger than the limit, because the default sizes would only take longer.
FAULTS = {**Fault.catalogue(), "huge_body": Fault.huge_body(mib=20), "gzip_bomb": Fault.gzip_bomb(mib=20)}


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Fills up with every proof that is sent."""
    sent: set[str] = set()
    sign = Credentials.sign

    def remembering(self: Credentials, request: Request, *, now: int) -> tuple[dict[str, str], dict[str, str]]:
        params, headers = sign(self, request, now=now)
        sent.add(params["appsecret_proof"])
        return params, headers

    monkeypatch.setattr(Credentials, "sign", remembering)
    return sent


@pytest.fixture
def everything_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    for name in [None, *logging.root.manager.loggerDict]:
        caplog.set_level(logging.NOTSET if name is None else logging.DEBUG, logger=name)

    async def mask_nothing(secret: str) -> None:
        """Leave the secret to the provider itself."""

    monkeypatch.setattr("airflow_provider_whatsapp.hooks._connection.mask_secret", lambda secret: None)
    monkeypatch.setattr("airflow_provider_whatsapp._compat.amask_secret", mask_nothing)
    for kind in (WhatsAppListWabasOperator, WhatsAppListWabaEdgeOperator, WhatsAppWabasSensor):
        monkeypatch.setattr(kind, "log", logging.getLogger("task"))
    return caplog


def shown_by(error: BaseException) -> str:
    chain: list[str] = []
    following: BaseException | None = error
    while following is not None:
        chain += [
            repr(following),
            str(following),
            repr(vars(following)),
            "".join(traceback.format_exception(following)),
        ]
        following = following.__cause__ or following.__context__
    return " ".join(chain)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_no_secret_shows(
    name: str,
    proofs: set[str],
    everything_logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shown: list[str] = []
    with no_waits(), GraphSandbox(accounts=120, app_secret=SECRET) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        fault = FAULTS[name].after(1)

        path, of_edge = tmp_path / "a.ndjson", tmp_path / "numbers.ndjson"
        accounts = [account["id"] for account in sandbox.accounts[:20]]
        edge: dict[str, Any] = {"waba_ids": accounts, "edge": "phone_numbers", "max_concurrency": 4}
        with DAG("d", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
            operators: list[Any] = [
                WhatsAppListWabasOperator(task_id="rows"),
                WhatsAppListWabasOperator(task_id="object", output_path=str(path)),
                WhatsAppWabasSensor(task_id="sensor", min_count=999, deferrable=True),
                WhatsAppListWabaEdgeOperator(task_id="rows_of_edge", **edge),
                WhatsAppListWabaEdgeOperator(
                    task_id="object_of_edge",
                    on_account_error="skip",
                    deferrable=True,
                    output_path=str(of_edge),
                    **edge,
                ),
            ]
        triggers: list[WhatsAppWabasTrigger] = []
        for operator in operators:
            sandbox.reset()
            sandbox.fail_next(fault)
            try:
                shown.append(json.dumps(operator.execute({})))
            except TaskDeferred as deferred:
                if isinstance(deferred.trigger, WhatsAppWabasTrigger):
                    triggers.append(deferred.trigger)
                shown.append(repr(deferred.trigger.serialize()))
                shown.append(repr(vars(deferred)))
            except Exception as error:
                shown.append(shown_by(error))
            shown.append(repr({field: getattr(operator, field) for field in operator.template_fields}))
            shown += [link.get_link(operator, ti_key=None) for link in operator.operator_extra_links]
            shown.append(repr(vars(operator)))
        shown += [one.read_text(errors="replace") for one in tmp_path.rglob("*") if one.is_file()]

        for trigger in triggers:
            sandbox.reset()
            sandbox.fail_next(fault)
            trigger.clock["deadline"] = trigger.clock["started"] + 200

            async def events(trigger: WhatsAppWabasTrigger = trigger) -> list[Any]:
                return [event.payload async for event in trigger.run()]

            shown += [repr(trigger), repr(trigger.serialize()), repr(run_virtually(events())[0])]

        sandbox.reset()
        sandbox.fail_next(fault)
        shown.append(repr(WhatsAppHook().test_connection()))
        shown.append(_serialized(dag))
        shown.append(everything_logged.text)
        secrets = {sandbox.token, SECRET, *proofs}
    text = " ".join(shown)
    assert [secret for secret in secrets if secret in text] == []
    assert "Listing the client accounts" in text
    assert "Listing the phone_numbers of 20 accounts" in text


def _serialized(dag: DAG) -> str:
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # Airflow 3.1
        from airflow.serialization.serialized_objects import (  # type: ignore[assignment, attr-defined]
            SerializedDAG as Serialization,
        )
    return json.dumps(Serialization.to_dict(dag), default=str)


def test_the_filter_is_what_keeps_library_logs_clean(
    proofs: set[str], everything_logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the test above can fail: the proof is in the record that the filter gets."""
    logged: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        logged.append(record.getMessage())
        return True

    # Filters run in their order, so this one sees each record before the secrets are masked.
    logger = logging.getLogger("urllib3.connectionpool")
    monkeypatch.setattr(logger, "filters", [note, *logger.filters])
    with GraphSandbox(accounts=1, app_secret=SECRET) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_WHATSAPP_DEFAULT", sandbox.connection)
        WhatsAppHook().list_wabas()
    assert [proof for proof in proofs if proof in "".join(logged)]
    assert not [proof for proof in proofs if proof in everything_logged.text]
