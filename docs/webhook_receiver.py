"""Receives Meta's webhooks, and starts a DAG run for each change of an account. See docs/webhooks.md."""

import logging
import os
import ssl
from collections import Counter
from collections.abc import Generator

import httpx
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from airflow_provider_whatsapp.webhooks import AccountChange, account_changes, answer_handshake, verify_signature

AIRFLOW = os.environ["AIRFLOW_URL"]  # as in https://airflow.example.org
USER = {"username": os.environ["AIRFLOW_USER"], "password": os.environ["AIRFLOW_PASSWORD"]}
CA_FILE = os.environ.get("AIRFLOW_CA_FILE")  # of a private authority that signed Airflow's certificate
DAGS = dict(pair.split("=") for pair in os.environ["AIRFLOW_DAGS"].split())  # by topic, or by topic and event
SECRETS = os.environ["META_APP_SECRET"].split()  # two while one is replaced
LARGEST = 3 * 1024 * 1024  # bytes; Meta sends no more at once
LOG = logging.getLogger("uvicorn.error")


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
verify = ssl.create_default_context(cafile=CA_FILE) if CA_FILE else True
airflow = httpx.AsyncClient(auth=Login(), limits=one, timeout=patience, verify=verify, trust_env=False)


@app.get("/health")
async def health() -> Response:
    """Answer that the receiver runs, whether or not Airflow does."""
    return Response("ok", media_type="text/plain")


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
    except ClientDisconnect:
        LOG.info("A request was cut off")
        return Response(status_code=400)
    header = request.headers.get("X-Hub-Signature-256")
    if not any(verify_signature(body, header, secret) for secret in SECRETS):
        LOG.warning("Refused a delivery from %s: Meta did not sign it", request.client and request.client.host)
        return Response(status_code=403)
    try:
        changes = account_changes(body)
    except ValueError as error:
        LOG.error("Refused a delivery: %s", error)
        return Response(status_code=400)
    results: Counter[str] = Counter()
    status = 200
    for change in changes:
        try:
            results[await start_run(change)] += 1
        except httpx.HTTPError as error:
            status = 503
            code = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            results[f"Airflow answered {code} for {error.request.url.path}" if code else repr(error)] += 1
            if code not in {400, 403, 404, 422}:
                break  # Airflow is away. It would refuse the other runs, too.
    LOG.log(logging.INFO if status == 200 else logging.ERROR, "Answered a delivery with %d: %s", status, dict(results))
    return Response(status_code=status)


async def start_run(change: AccountChange) -> str:
    """Start the DAG of a change, and return what was done."""
    topic = f"{change.field}/{change.event}"
    dag = DAGS.get(topic) or DAGS.get(change.field)
    if dag is None:
        return f"no DAG for {topic}"
    # With the day, a change that happens again later starts a run again.
    day = f"-{change.sent_at:%Y-%m-%d}" if change.sent_at else ""
    conf = {"waba_id": change.waba_id, "field": change.field, "event": change.event, "value": change.value}
    run = {"dag_run_id": change.key + day, "logical_date": None, "conf": conf}
    answer = await airflow.post(f"{AIRFLOW}/api/v2/dags/{dag}/dagRuns", json=run)
    if answer.status_code == 409:  # an earlier delivery of this change has started the run
        return f"{dag} was started before"
    answer.raise_for_status()
    return f"{dag} started"
