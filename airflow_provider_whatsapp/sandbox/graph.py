"""The Graph itself: which node or edge a path names, and what is answered. No sockets, no faults."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from . import accounts as make
from .accounts import Node
from .fields import ACCOUNT, APPLICATION, BUSINESS, PHONE_NUMBER, SYSTEM_USER, TEMPLATE, Field, NodeType, pick
from .listing import Page, cut, find, select
from .messages import ACCOUNT_EDGES, CLIENT_EDGE, EDGES, OWNED_EDGE, ApiError, Request

OLDEST_VERSION = 21
PROOF_LIFETIME = 300
SCOPES = (
    "whatsapp_business_management",
    "whatsapp_business_messaging",
    "business_management",
    "public_profile",
)


@dataclass(frozen=True)
class Reading:
    """What holds for one request: the version it runs on and how links in its answer begin and end."""

    version: str
    base: str
    token: str | None

    @property
    def major(self) -> int:
        """The major version, which decides what fields there are."""
        return int(self.version[1:].partition(".")[0])

    def url(self, path: str, params: dict[str, str]) -> str:
        """Make an absolute URL; it holds the token only when the request's own URL did."""
        token = {"access_token": self.token} if self.token else {}
        return f"{self.base}/{self.version}/{path}?{urlencode({**token, **params})}"


class Graph:
    """Businesses, their accounts, the token that reads them, and the rules of reading."""

    def __init__(
        self, *, accounts: int, owned_accounts: int, businesses: int, seed: int,
        token: str | None, app_secret: str | None, api_version: str,
    ) -> None:  # fmt: skip
        taken: set[str] = set()
        self.seed = seed
        self.token = token or make.make_token(seed)
        self.app_secret = app_secret
        self.api_version = api_version
        self.application: Node = {"id": make.make_id(make.stream(seed, "app"), taken), "name": "Sandbox App"}
        self.user: Node = {
            "id": make.make_id(make.stream(seed, "user"), taken),
            "name": "Sandbox System User",
        }
        self.token_info: dict[str, Any] = {}
        self.businesses = make.make_businesses(seed, businesses, taken)
        self.lists: dict[tuple[str, str], list[Node]] = {}
        for business in self.businesses:
            for edge, count in ((CLIENT_EDGE, accounts), (OWNED_EDGE, owned_accounts)):
                made = make.make_accounts(seed, business, count, taken, owned=edge == OWNED_EDGE)
                self.lists[business["id"], edge] = made
        self._taken = taken
        self._places: dict[str, tuple[tuple[str, str], int]] = {}

    # The way of a request

    def version(self, request: Request) -> tuple[str, list[str]]:
        """Give the version a request runs on, and its path without the version.

        An expired version runs silently on the oldest one still usable, an unversioned call on the app's own.
        """
        segments = request.segments
        major, dot, minor = segments[0][1:].partition(".") if segments and segments[0][:1] == "v" else ("", "", "")
        if not (dot and major.isdecimal() and minor.isdecimal() and len(major + minor) < 5):
            return self.api_version, segments
        newest = int(self.api_version[1:].partition(".")[0])
        if int(major) > max(newest, 26) or (int(major) >= OLDEST_VERSION and int(minor)):
            raise ApiError(2500, f"Unknown path components: /{'/'.join(segments)}")
        return (segments[0] if int(major) >= OLDEST_VERSION else f"v{OLDEST_VERSION}.0"), segments[1:]

    def read(self, request: Request, segments: list[str], reading: Reading) -> dict[str, Any] | Page:
        """Answer a request whose version is known.

        :raises ApiError: As the Graph API refuses it.
        """
        if request.method != "GET":
            raise _unsupported(request.method.lower())
        self._authenticate(request, segments)
        if segments == ["debug_token"]:
            return {"data": self._inspect(request.params.get("input_token"))}
        if not 1 <= len(segments) <= 2:
            raise (
                ApiError(2500, f"Unknown path components: /{'/'.join(segments[2:])}") if segments else _unsupported()
            )
        kind, node = self._find(segments[0])
        if len(segments) == 1:
            wanted = kind.wanted(request.params.get("fields"))
            kind.check(wanted, reading.major, _own_names([node], kind))
            return self._render(node, wanted, kind, reading)
        if segments[1] in kind.edges:
            return self._list(node, "/".join(segments), kind.edges[segments[1]], request.params, reading)
        # An edge of some other type of node is a field this one lacks; anything else is no path at all.
        raise (
            kind.nonexisting(segments[1])
            if segments[1] in EDGES
            else ApiError(2500, f"Unknown path components: /{segments[1]}")
        )

    def _authenticate(self, request: Request, segments: list[str]) -> None:
        token = request.token
        if token is None:
            if segments[:1] == ["me"]:
                raise ApiError(2500, "An active access token must be used to query information about the current user.")
            raise ApiError(104, "An access token is required to request this resource.")
        if not self._knows(token, app_too=segments == ["debug_token"]):
            raise ApiError(190, "Invalid OAuth access token - Cannot parse access token", status=401)
        if self.app_secret is not None:
            self._check_proof(self.app_secret, token, request.params)

    def _knows(self, token: str, *, app_too: bool = False) -> bool:
        known = [self.token]
        if app_too and self.app_secret is not None:
            known.append(f"{self.application['id']}|{self.app_secret}")
        return any(hmac.compare_digest(token.encode(), one.encode()) for one in known)

    def _check_proof(self, secret: str, token: str, params: dict[str, str]) -> None:
        proof, made_at = params.get("appsecret_proof"), params.get("appsecret_time")
        if not proof:
            raise ApiError(
                100,
                "API calls from the server require an appsecret_proof argument",
                type="GraphMethodException",
            )
        message = token if made_at is None else f"{token}|{made_at}"
        expected = hmac.digest(secret.encode(), message.encode(), "sha256").hex()
        right = hmac.compare_digest(expected.encode(), proof.encode())
        if made_at is not None:
            age = time.time() - int(made_at) if made_at.isdecimal() and len(made_at) < 12 else PROOF_LIFETIME + 1
            right = right and age <= PROOF_LIFETIME
        if not right:
            raise ApiError(100, "Invalid appsecret_proof provided in the API argument", type="GraphMethodException")

    def _inspect(self, input_token: str | None) -> dict[str, Any]:
        if not input_token:
            raise ApiError(100, "(#100) The parameter input_token is required")
        if not self._knows(input_token):
            error = {"code": 190, "message": "Invalid OAuth access token - Cannot parse access token"}
            return {"error": error, "is_valid": False, "scopes": []}
        return {
            "app_id": self.application["id"],
            "application": self.application["name"],
            "type": "SYSTEM_USER",
            "is_valid": True,
            "expires_at": 0,
            "data_access_expires_at": 0,
            "issued_at": 1_769_000_000,
            "scopes": list(SCOPES),
            # Without target_ids: the permissions cover everything.
            "granular_scopes": [{"scope": scope} for scope in SCOPES[:3]],
            "user_id": self.user["id"],
            **self.token_info,
        }

    # Nodes and edges

    def _find(self, node_id: str) -> tuple[NodeType, Node]:
        if node_id in {"me", self.user["id"]}:
            return SYSTEM_USER, self.user
        if node_id in {"app", self.application["id"]}:
            return APPLICATION, self.application
        if business := find([self.businesses], node_id):
            return BUSINESS, business
        if account := self._find_account(node_id):
            return ACCOUNT, account
        if parent := self._find_account(node_id[:-2]):
            for edge, kind in (("phone_numbers", PHONE_NUMBER), ("message_templates", TEMPLATE)):
                if node := find([self._rows(parent, edge)], node_id):
                    return kind, node
        given = (account.get("phone_numbers") or [] for rows in self.lists.values() for account in list(rows))
        if number := find(given, node_id):
            return PHONE_NUMBER, number
        raise _unsupported("get", node_id)

    def _find_account(self, node_id: str) -> Node | None:
        """Find an account by the place it was last seen at, since the lists are not ours alone to change."""
        if (account := self._account_at_its_place(node_id)) is not None:
            return account
        self._places = {
            str(row["id"]): (key, position)
            for key, rows in self.lists.items()
            for position, row in enumerate(list(rows))
        }
        return self._account_at_its_place(node_id)

    def _account_at_its_place(self, node_id: str) -> Node | None:
        key, position = self._places.get(node_id, (("", ""), 0))
        rows = self.lists.get(key, [])
        return rows[position] if position < len(rows) and str(rows[position].get("id")) == node_id else None

    def _rows(self, node: Node, edge: str) -> list[Node]:
        if edge in ACCOUNT_EDGES:
            return self.lists.setdefault((node["id"], edge), [])
        if edge == "businesses":
            return self.businesses
        if edge in node:
            return list(node[edge])
        return (make.make_phone_numbers if edge == "phone_numbers" else make.make_templates)(self.seed, node)

    def accounts_at(self, segments: list[str]) -> list[Node] | None:
        """Give the mutable list an account edge's path names, if there is one."""
        if len(segments) == 2 and segments[1] in ACCOUNT_EDGES:
            return self.lists.get((segments[0], segments[1]))
        return None

    def new_account(self, business_id: str) -> Node:
        """Make one more account, shared with a business."""
        number = len(self._taken)
        return make.make_accounts(number, {"id": business_id, "name": ""}, 1, self._taken, owned=False)[0]

    # Rendering

    def _list(self, node: Node, path: str, kind: NodeType, params: dict[str, str], reading: Reading) -> Page:
        edge = path.rpartition("/")[2]
        wanted = kind.wanted(params.get("fields"))
        rows = select(self._rows(node, edge), edge, params.get("filtering"), params.get("sort"))

        def render(row: Node) -> Node:
            return self._render(row, wanted, kind, reading)

        def link(direction: str, cursor: str) -> str:
            left_out = {"access_token", "appsecret_proof", "appsecret_time", "after", "before"}
            kept = {name: value for name, value in params.items() if name not in left_out}
            return reading.url(path, {**kept, direction: cursor})

        page = cut(rows, params, render, link)
        kind.check(wanted, reading.major, _own_names(page.rows[page.start : page.end], kind))
        return page

    def _render(self, node: Node, wanted: tuple[Field, ...], kind: NodeType, reading: Reading) -> Node:
        shown: Node = {}
        for item in wanted:
            if item.name in kind.edges:
                shown[item.key] = self._expand(node, item, kind.edges[item.name], reading)
            elif (value := self._value(node, item.name, kind)) is not None:
                shown[item.key] = pick(value, item.fields)
        shown.setdefault("id", node["id"])
        return shown

    def _expand(self, node: Node, item: Field, kind: NodeType, reading: Reading) -> dict[str, Any]:
        params = {name: value for name, value in item.modifiers.items() if name != "as"}
        if item.text:
            params["fields"] = item.text
        return self._list(node, f"{node['id']}/{item.name}", kind, params, reading).payload()

    def _value(self, node: Node, name: str, kind: NodeType) -> Any:
        if name == "health_status" and name not in node and "message_templates" in kind.edges:
            return make.make_health(node)
        return node.get(name)


def _own_names(nodes: Iterable[Node], kind: NodeType) -> set[str]:
    """Name what someone put on nodes beyond the fields of their type."""
    # The tasks are kept with a shared account, yet they belong to the edge and not to the node.
    return {name for node in nodes for name in node} - kind.fields.keys() - {"permitted_tasks"}


def _unsupported(method: str = "get", node_id: str | None = None) -> ApiError:
    what = (
        f" Object with ID '{node_id}' does not exist, cannot be loaded due to missing permissions, or does"
        " not support this operation."
        if node_id
        else ""
    )
    return ApiError(
        100,
        f"Unsupported {method} request.{what} Please read the Graph API documentation at"
        " https://developers.facebook.com/docs/graph-api",
        type="GraphMethodException",
        subcode=33,
    )
