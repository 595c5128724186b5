"""The simulated Graph API: finds the node or edge of a path and its response, without sockets and faults."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from airflow_provider_whatsapp.transport import clock

from . import accounts as samples
from .accounts import ACCOUNT_EDGES, ASSIGNED_EDGE, CLIENT_EDGE, OWNED_EDGE, TASKS, Node
from .analytics import make_messaging_analytics
from .api_error import ApiError
from .node_types import ACCOUNT, APPLICATION, BUSINESS, EDGES, MODIFIERS, SYSTEM_USER
from .parameters import AccountRead
from .row_maker import NodeType
from .selected_fields import SelectedField, parse_fields, pick
from .selected_rows import RowSlice, select_rows, slice_rows
from .shapes import PHONE_NUMBER
from .special_rows import make_health

OLDEST_VERSION = 21
#: Seconds for which a proof with an ``appsecret_time`` is valid.
PROOF_LIFETIME = 300
SCOPES = ("whatsapp_business_management", "whatsapp_business_messaging", "business_management", "public_profile")
# Parameters to leave out of a link to another page, which has its own cursor.
_NOT_IN_LINKS = frozenset({"access_token", "appsecret_proof", "appsecret_time", "after", "before"})


@dataclass(frozen=True)
class ReadContext:
    """The facts that apply to everything that one request reads.

    :param version: the API version that it runs on, e.g. ``v26.0``
    :param base: the start of links in the response
    :param token: the token to put into links, or None if the request did not have it in its URL
    """

    version: str
    base: str
    token: str | None

    @property
    def major(self) -> int:
        """The major version, which decides which fields exist."""
        return int(self.version[1:].partition(".")[0])

    def url(self, path: str, params: dict[str, str]) -> str:
        """Return an absolute URL for a link."""
        token = {"access_token": self.token} if self.token else {}
        return f"{self.base}/{self.version}/{path}?{urlencode({**token, **params})}"


class SimulatedApi:
    """The businesses with their accounts, the token that can read them, and the rules for reading."""

    def __init__(
        self, *, accounts: int, owned_accounts: int, businesses: int, seed: int,
        token: str | None, app_secret: str | None, api_version: str, new_app: bool = False,
    ) -> None:  # fmt: skip
        taken: set[str] = set()
        self.seed = seed
        self.token = token or samples.make_token(seed)
        self.app_secret = app_secret
        self.api_version = api_version
        self._modifiers = MODIFIERS - ({"as"} if new_app else set())
        app_id, user_id = (samples.make_id(samples.random_for(seed, kind), taken) for kind in ("app", "user"))
        self.application: Node = {"id": app_id, "name": "Sandbox App"}
        self.user: Node = {"id": user_id, "name": "Sandbox System User"}
        self.token_info: dict[str, Any] = {}
        self.businesses = samples.make_businesses(seed, businesses, taken)
        self.lists: dict[tuple[str, str], list[Node]] = {}
        for business in self.businesses:
            for edge, count in ((CLIENT_EDGE, accounts), (OWNED_EDGE, owned_accounts)):
                made = samples.make_accounts(seed, business, count, taken, owned=edge == OWNED_EDGE)
                self.lists[business["id"], edge] = made
        self._taken = taken
        self._places: dict[str, tuple[tuple[str, str], int]] = {}

    def make_client_accounts(self, count: int) -> list[Node]:
        """Return new accounts that clients could share with the first business; they are not in its list yet."""
        # Use a new seed each time, because the same one would give the existing accounts with other ids.
        accounts = samples.make_accounts(
            self.seed + len(self._taken), self.businesses[0], count, self._taken, owned=False
        )
        for account in accounts:
            owner = samples.make_id(samples.random_for(account["id"], "owner"), self._taken)
            account.setdefault("owner_business_info", {"id": owner})
        return accounts

    def version_of(self, segments: list[str]) -> tuple[str, list[str]]:
        """Return the version that a request runs on, and the segments of its path without the version.

        A call with an expired version runs on the oldest one that is left, and a call without a version on
        the version of the app.

        :raises ApiError: (2500) if there is no such version
        """
        major, dot, minor = segments[0][1:].partition(".") if segments and segments[0][:1] == "v" else ("", "", "")
        if not (dot and major.isdecimal() and minor.isdecimal() and len(major + minor) < 5):
            return self.api_version, segments
        newest = int(self.api_version[1:].partition(".")[0])
        if int(major) > max(newest, 26) or (int(major) >= OLDEST_VERSION and int(minor)):
            raise _unknown_path(segments)
        return (segments[0] if int(major) >= OLDEST_VERSION else f"v{OLDEST_VERSION}.0"), segments[1:]

    def read(
        self, method: str, segments: list[str], params: dict[str, str], token: str | None, context: ReadContext
    ) -> dict[str, Any] | RowSlice:
        """Return the requested node or page.

        :param segments: the segments of its path without the version
        :raises ApiError: if the Graph API would refuse the request
        """
        if method != "GET":
            raise _unsupported(method.lower())
        self._authenticate(token, segments, params)
        if segments == ["debug_token"]:
            return {"data": self._inspect(params.get("input_token"))}
        if not segments:
            raise _unsupported()
        if len(segments) > 2:
            raise _unknown_path(segments[2:])
        kind, node = self._find(segments[0])
        if len(segments) == 1:
            selection = _selection(kind, params, self._modifiers)
            kind.check(selection, context.major, _own_names([node], kind))
            return self._render(node, selection, kind, context)
        edge = segments[1]
        if edge in kind.edges:
            return self._list(node, "/".join(segments), kind.edges[edge], params, context)
        # An edge that only other types of nodes have is refused like a missing field.
        raise kind.nonexisting(edge) if edge in EDGES else _unknown_path([edge])

    # Access

    def _authenticate(self, token: str | None, segments: list[str], params: dict[str, str]) -> None:
        if token is None:
            if segments[:1] == ["me"]:
                raise ApiError(2500, "An active access token must be used to query information about the current user.")
            raise ApiError(104, "An access token is required to request this resource.")
        if not self._accepts(token, app_token=segments == ["debug_token"]):
            raise ApiError(190, "Invalid OAuth access token - Cannot parse access token", status=401)
        if self.app_secret is not None:
            self._check_proof(self.app_secret, token, params)

    def _accepts(self, token: str, *, app_token: bool = False) -> bool:
        known = [self.token]
        if app_token and self.app_secret is not None:
            known.append(f"{self.application['id']}|{self.app_secret}")
        return any(hmac.compare_digest(token.encode(), one.encode()) for one in known)

    def _check_proof(self, secret: str, token: str, params: dict[str, str]) -> None:
        proof, made_at = params.get("appsecret_proof"), params.get("appsecret_time")
        if not proof:
            message = "API calls from the server require an appsecret_proof argument"
            raise ApiError(100, message, type="GraphMethodException")
        signed = token if made_at is None else f"{token}|{made_at}"
        expected = hmac.digest(secret.encode(), signed.encode(), "sha256").hex()
        is_right = hmac.compare_digest(expected.encode(), proof.encode())
        if made_at is not None:
            is_time = made_at.isdecimal() and len(made_at) < 12
            is_right = is_right and is_time and clock.now() - int(made_at) <= PROOF_LIFETIME
        if not is_right:
            raise ApiError(100, "Invalid appsecret_proof provided in the API argument", type="GraphMethodException")

    def _inspect(self, input_token: str | None) -> dict[str, Any]:
        """Return what ``debug_token`` says about a token."""
        if not input_token:
            raise ApiError(100, "(#100) The parameter input_token is required")
        if not self._accepts(input_token):
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
            # A scope without target_ids covers every business.
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
        if business := _with_id(self.businesses, node_id):
            return BUSINESS, business
        if account := self._find_account(node_id):
            return ACCOUNT, account
        for edge, kind in ACCOUNT.edges.items():
            # The rows of an edge with required parameters cannot be read on their own.
            if kind.ids and not kind.required and _ends_in(node_id, kind):
                parent = self._find_account(node_id[: -kind.id_digits])
                if parent is not None and (node := _with_id(self._rows(parent, edge, {}), node_id)):
                    return kind, node
        # A user may have added phone numbers with other ids to any account.
        for rows in self.lists.values():
            for account in list(rows):
                if node := _with_id(account.get("phone_numbers") or [], node_id):
                    return PHONE_NUMBER, node
        raise _unsupported("get", node_id)

    def _find_account(self, node_id: str) -> Node | None:
        """Return the account with this id; its last position is tried first, because users may change the lists."""
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

    def account_of(self, segments: list[str]) -> Node | None:
        """Return the account that a path without version names, alone or with an edge, or None if it names none."""
        # Do not look for a business among the accounts: a long search would make each of its pages slow.
        if not segments or not segments[0].isdecimal() or _with_id(self.businesses, segments[0]):
            return None
        return self._find_account(segments[0])

    def _rows(self, node: Node, edge: str, params: dict[str, str]) -> list[Node]:
        if edge in ACCOUNT_EDGES:
            return self.lists.setdefault((node["id"], edge), [])
        if edge == "businesses":
            return self.businesses
        if edge == ASSIGNED_EDGE:
            return [account for accounts in list(self.lists.values()) for account in list(accounts)]
        kind, read = ACCOUNT.edges[edge], self._account_read(node, params)
        read.require(kind.required.split())
        return kind.keep(read, kind.rows(edge, read))

    def _account_read(self, account: Node, params: dict[str, str]) -> AccountRead:
        return AccountRead(self.seed, account, params, self.application)

    def new_account(self, business_id: str) -> Node:
        """Return a new account of a client of the business. Requests find it once the caller adds it to a list."""
        seed = len(self._taken)
        return samples.make_accounts(seed, {"id": business_id, "name": ""}, 1, self._taken, owned=False)[0]

    # Rendering

    def _list(self, node: Node, path: str, kind: NodeType, params: dict[str, str], context: ReadContext) -> RowSlice:
        edge = path.rpartition("/")[2]
        selection = _selection(kind, params, self._modifiers)
        rows = select_rows(
            self._rows(node, edge, params), edge, params.get("filtering"), params.get("sort"), params.get("find")
        )
        kept = {name: value for name, value in params.items() if name not in _NOT_IN_LINKS}
        page = slice_rows(
            rows,
            params,
            render=lambda row: self._render(row, selection, kind, context),
            link=lambda direction, cursor: context.url(path, {**kept, direction: cursor}),
            is_paged=kind.is_paged,
            summary=kind.summary,
        )
        kind.check(selection, context.major, _own_names(page.rows[page.start : page.end], kind))
        return page

    def _render(self, node: Node, selection: tuple[SelectedField, ...], kind: NodeType, context: ReadContext) -> Node:
        if not kind.has_id:
            return dict(node)
        is_account = kind.name == ACCOUNT.name
        shown: Node = {}
        for item in selection:
            if item.name in kind.edges:
                path = f"{node['id']}/{item.name}"
                shown[item.key] = self._list(node, path, kind.edges[item.name], item.params, context).payload()
            elif (value := node.get(item.name)) is not None:
                shown[item.key] = pick(value, item.fields)
            elif item.name in kind.nulls.split():
                shown[item.key] = None
            elif item.name == "tasks" and is_account:
                # The accounts that a business owns have no tasks of their own: its admin has all of them.
                shown[item.key] = node.get("permitted_tasks", list(TASKS))
            elif is_account and item.name == "health_status":
                shown[item.key] = pick(make_health(node, self.application), item.fields)
            elif is_account and item.name == "analytics":
                shown[item.key] = make_messaging_analytics(self._account_read(node, item.params))
        shown.setdefault("id", node["id"])
        return shown


def _selection(kind: NodeType, params: dict[str, str], modifiers: Set[str]) -> tuple[SelectedField, ...]:
    """Return the fields that the ``fields`` parameter selects, or the default ones if there is none."""
    if text := params.get("fields"):
        return parse_fields(text, modifiers)
    return tuple(map(SelectedField, kind.defaults.split() if kind.has_id else ()))


def _ends_in(node_id: str, kind: NodeType) -> bool:
    """Return whether a generated row of an account's edge could have the id."""
    end = node_id[-kind.id_digits :]
    return end.isdecimal() and int(end) in kind.ids


def _own_names(nodes: Iterable[Node], kind: NodeType) -> set[str]:
    """Return the names of the fields that a test added to the nodes and that the node type does not declare."""
    # The sandbox stores the tasks and the partners of shared accounts under these names, so no test has added them.
    return {name for node in nodes for name in node} - kind.fields.keys() - {"permitted_tasks", "partners"}


def _with_id(nodes: list[Node], node_id: str) -> Node | None:
    return next((node for node in nodes if str(node.get("id")) == node_id), None)


def _unknown_path(segments: list[str]) -> ApiError:
    return ApiError(2500, f"Unknown path components: /{'/'.join(segments)}")


def _unsupported(method: str = "get", node_id: str | None = None) -> ApiError:
    reason = (
        f" Object with ID '{node_id}' does not exist, cannot be loaded due to missing permissions, or does not support"
        " this operation."
    )
    message = (
        f"Unsupported {method} request.{reason if node_id else ''} Please read the Graph API documentation at"
        " https://developers.facebook.com/docs/graph-api"
    )
    return ApiError(100, message, type="GraphMethodException", error_subcode=33)
