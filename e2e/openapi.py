"""Holds the client and the sandbox against the OpenAPI file that Meta publishes, with Prism between them.

The variable ``META_OPENAPI`` names the file ``business-messaging-api_v23.0.yaml`` of Meta's repository
``facebook/openapi``.

* Edges: Prism answers with every example of every edge. The client must accept each and give the rows in it.
* Errors: Prism answers with every error in the file. The client must raise an error with the code of the example.
* Sandbox: Prism forwards requests to the sandbox and compares its answers with the file.

Nodes are left out: the file has many of them under the same path, and Prism takes the first. What is no page of an edge
in the file is left out, too.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml
from services import Server, free_port, npm_program

from airflow_provider_whatsapp.graph import GraphError, GraphProtocolError
from airflow_provider_whatsapp.graph.config import GraphConfig
from airflow_provider_whatsapp.graph.credentials import Credentials
from airflow_provider_whatsapp.graph.decoding import parse_json
from airflow_provider_whatsapp.graph.patience import Patience
from airflow_provider_whatsapp.graph.query import EdgeQuery, build_edge_query
from airflow_provider_whatsapp.sandbox import GraphSandbox
from airflow_provider_whatsapp.transport.sync import GraphClient

_EDGE = re.compile(r"/\{Version\}/\{[^}]+\}/([a-z_]+)")
_NODE_ID = "1234567890123456"
_VERSION = "v23.0"
# The most that every edge in the file allows.
_PAGE_SIZE = 25
# The sandbox answers with this code when it does not have an edge.
_UNKNOWN_PATH = 2500
#: Where the sandbox differs from the file on purpose, and why.
KNOWN_DIFFERENCES = {
    "data[].business_verification_status": "Meta's guides and the live API have the status in lower case",
    "data[].ownership_type": "Meta's guides name more types than the file",
    "data[].status": "Meta's reference of phone numbers names more statuses than the file",
    "data[] status": "the file requires the field also where it was not asked for",
}


class Referee:
    """The OpenAPI file, and what was found so far.

    :param path: path of the file
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spec: dict[str, Any] = yaml.safe_load(path.read_text())
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def edges(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the description of each edge that can be read."""
        for path, methods in self._spec["paths"].items():
            if (match := _EDGE.fullmatch(path)) and "get" in methods:
                yield match[1], methods["get"]

    def check_edges(self) -> None:
        """Read the examples of every edge, and every error that it can answer with."""
        with self._prism("mock") as address, GraphClient(_config(address), patience=Patience(attempts=1)) as client:
            for name, described in self.edges():
                try:
                    query = build_edge_query(
                        f"{_NODE_ID}/{name}", params=self._required_params(described), page_size=_PAGE_SIZE
                    )
                except ValueError as error:
                    # For example an edge that hands out tokens.
                    print(f"{name}: not read: {error}")
                    self.counts["edges that the package refuses to read"] += 1
                    continue
                status, violations, _ = _get(address, query, "EAA")
                reasons = [one["message"] for one in violations if one["location"][0] == "request"]
                if status != 200 or reasons:
                    print(f"{name}: not read, because the file does not allow the request: {[status, *reasons]}")
                    self.counts["edges whose request the file does not allow"] += 1
                    continue
                self.counts["edges"] += 1
                for expected, answer in described["responses"].items():
                    for example, payload in self._examples(answer):
                        if expected != "200" or (isinstance(payload, dict) and "data" in payload):
                            self._check_example(client, query, expected, example, payload)

    def check_sandbox(self) -> None:
        """Compare the sandbox's answers with the file."""
        with GraphSandbox(accounts=30) as sandbox, self._prism("proxy", sandbox.url) as address:
            account = sandbox.accounts[0]["id"]
            for name, described in self.edges():
                node = sandbox.business_id if name.endswith("_whatsapp_business_accounts") else account
                node = "me" if name.startswith("assigned_whatsapp") else node
                try:
                    query = build_edge_query(f"{node}/{name}", params=self._required_params(described))
                    query = query.for_version(_VERSION)
                except ValueError:
                    continue
                if "business" in query.params:
                    query = replace(query, params={**query.params, "business": sandbox.business_id})
                status, violations, body = _get(address, query, sandbox.token)
                if status == 400 and json.loads(body).get("error", {}).get("code") == _UNKNOWN_PATH:
                    continue
                self.counts["edges of the sandbox"] += 1
                if status != 200:
                    self.problems.append(f"sandbox, {name}: {status} {body[:300].decode(errors='replace')}")
                for difference in sorted({*map(_describe, violations)} - {""}):
                    if reason := next((why for what, why in KNOWN_DIFFERENCES.items() if what in difference), ""):
                        print(f"sandbox, {name}: {difference} ({reason})")
                        self.counts["known differences of the sandbox"] += 1
                    else:
                        self.problems.append(f"sandbox, {name}: {difference}")

    def _check_example(self, client: GraphClient, query: EdgeQuery, status: str, example: str, payload: Any) -> None:
        where = f"{query.path.partition('/')[2]}, {status} {example}"
        asked = {"__code": status, **({"__example": example} if example else {})}
        try:
            with closing(client.pages(replace(query, params={**query.params, **asked}))) as pages:
                rows = next(pages).rows
        except GraphError as error:
            expected = payload.get("error", {}).get("code") if isinstance(payload, dict) else None
            found = getattr(error, "code", None)
            if status == "200":
                self.problems.append(f"{where}: {error}")
            elif isinstance(error, GraphProtocolError) or (expected is not None and found != expected):
                self.problems.append(f"{where}: code {found} instead of {expected}: {error}")
            else:
                self.counts[f"errors that are a {type(error).__name__}"] += 1
            return
        if status != "200":
            self.problems.append(f"{where}: {len(rows)} rows instead of an error")
        elif rows != parse_json(json.dumps(payload).encode())["data"]:
            self.problems.append(f"{where}: other rows than in the example")
        else:
            self.counts["pages"] += 1

    def _examples(self, answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        content = self._resolve(answer).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            yield name, self._resolve(example).get("value")
        if "example" in content:
            yield "", content["example"]

    def _required_params(self, described: dict[str, Any]) -> dict[str, Any]:
        found = map(self._resolve, described.get("parameters", []))
        return {
            one["name"]: one.get("example", one.get("schema", {}).get("example", _NODE_ID))
            for one in found
            if one["in"] == "query" and one.get("required")
        }

    def _resolve(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            found: Any = self._spec
            for key in value["$ref"].removeprefix("#/").split("/"):
                found = found[key]
            value = found
        return value

    @contextmanager
    def _prism(self, mode: str, *upstream: str) -> Iterator[str]:
        port = free_port()
        program = npm_program("prism", "@stoplight/prism-cli@5.14.2")
        server = Server([program, mode, "--port", str(port), str(self._path), *upstream], port)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop()


def _config(address: str) -> GraphConfig:
    return GraphConfig(credentials=Credentials("EAA" + "x" * 40), base_url=address, version=_VERSION)


def _describe(violation: dict[str, Any]) -> str:
    """Return what Prism finds wrong with an answer, alike for all rows, or an empty text if the request is wrong."""
    location = ".".join(violation["location"][2:])
    required = re.search(r"must have required property '(\w+)'", violation["message"])
    what = f"{location} {required[1]}" if required else location
    return re.sub(r"\.\d+", "[]", what) if violation["location"][0] == "response" else ""


def _get(address: str, query: EdgeQuery, token: str) -> tuple[int, list[dict[str, Any]], bytes]:
    """Return the status of an answer, what Prism finds wrong with request and answer, and the body."""
    request = query.request(limit=10, after=None)
    target = f"{urlsplit(_config(address).url(request)).path}?{urlencode(request.params)}"
    with closing(HTTPConnection(urlsplit(address).netloc, timeout=600)) as connection:
        connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.headers.get("sl-violations", "[]")), answer.read()


def main() -> None:
    """Check everything, print what was found, and exit with 1 if something does not fit."""
    if "META_OPENAPI" not in os.environ:
        sys.exit(__doc__)
    referee = Referee(Path(os.environ["META_OPENAPI"]))
    referee.check_edges()
    referee.check_sandbox()
    for what, count in sorted(referee.counts.items()):
        print(f"{count:5} {what}")
    for problem in referee.problems:
        print(f"PROBLEM {problem}")
    sys.exit(bool(referee.problems))


if __name__ == "__main__":
    main()
