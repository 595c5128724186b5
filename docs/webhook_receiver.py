"""Receives Meta's webhooks and starts a DAG run for each account that a client shares. See docs/webhooks.md."""

import logging
import os
from collections.abc import Generator

import httpx
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from airflow_provider_whatsapp.webhooks import account_changes, answer_handshake, verify_signature

AIRFLOW = os.environ["AIRFLOW_URL"]  # as in http://airflow-apiserver:8080
USER = {"username": os.environ["AIRFLOW_USER"], "password": os.environ["AIRFLOW_PASSWORD"]}
RUNS = f"{AIRFLOW}/api/v2/dags/welcome_shared_waba/dagRuns"
LARGEST = 3 * 1024 * 1024  # bytes; Meta sends no more at once


class Login(httpx.Auth):
    """Logs in to Airflow, and again when the token has expired."""

    requires_response_body = True
    token: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and send it once more after a login if Airflow does not accept the token."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        if (yield request).status_code in {401, 403}:  # expired, or not a token of this Airflow
            answer = yield httpx.Request("POST", f"{AIRFLOW}/auth/token", json=USER)
            self.token = answer.raise_for_status().json()["access_token"]
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


app = FastAPI(openapi_url=None)
# One connection: Airflow gets one request at a time, however many deliveries come at once.
one, patience = httpx.Limits(max_connections=1), httpx.Timeout(10, pool=60)  # seconds
airflow = httpx.AsyncClient(auth=Login(), limits=one, timeout=patience, trust_env=False)


@app.get("/whatsapp")
async def handshake(request: Request) -> Response:
    """Answer Meta when you enter the address of this receiver in the app's dashboard."""
    challenge = answer_handshake(request.query_params, os.environ["META_VERIFY_TOKEN"])
    return Response(status_code=403) if challenge is None else Response(challenge, media_type="text/plain")


@app.post("/whatsapp")
async def receive(request: Request) -> Response:
    """Start the runs of a delivery. Meta sends it again later unless the answer is 200."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return Response(status_code=413)
    except ClientDisconnect:  # otherwise, anyone could fill the log with tracebacks
        return Response(status_code=400)
    if not verify_signature(body, request.headers.get("X-Hub-Signature-256"), os.environ["META_APP_SECRET"]):
        return Response(status_code=403)
    try:
        for change in account_changes(body):
            if change.event == "PARTNER_ADDED" and change.waba_id:
                run = {"dag_run_id": change.key, "logical_date": None, "conf": {"waba_id": change.waba_id}}
                answer = await airflow.post(RUNS, json=run)
                if answer.status_code != 409:  # 409: an earlier delivery of this change has started the run
                    answer.raise_for_status()
    except (ValueError, httpx.HTTPError) as error:
        logging.getLogger("uvicorn.error").error("Some runs were not started, Meta must send again: %r", error)
        return Response(status_code=503)
    return Response()
