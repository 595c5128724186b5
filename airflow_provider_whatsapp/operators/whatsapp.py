"""Lists the WhatsApp Business Accounts (WABAs) of a business into XCom or object storage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset, BaseOperator

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException, conf
from airflow_provider_whatsapp.hooks.whatsapp import EDGES, WhatsAppHook, failing_fast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from airflow.sdk import Context

    from airflow_provider_whatsapp.client import GraphClient
    from airflow_provider_whatsapp.graph.pages import Page
    from airflow_provider_whatsapp.graph.query import EdgeRead
    from airflow_provider_whatsapp.output import Target

_SECONDS_BETWEEN_PROGRESS_LINES = 10.0
_IF_EXISTS = ("overwrite", "fail", "skip")
_IF_EMPTY = ("succeed", "skip", "fail")


class WhatsAppListClientWabasOperator(BaseOperator):
    """Lists the WABAs that clients share with a business (or that it owns): a complete list, or an error.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a small manifest: ``uri``, ``format``,
    ``count``, ``bytes``, ``sha256``, ``pages``, ``business_id``, ``edge``, ``fields``, ``truncated``.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    :param business_id: business portfolio id; default that of the connection
    :param edge: ``"client"`` for accounts shared with the business, ``"owned"`` for its own
    :param fields: sequence of names or comma string, nested ``{}`` allowed
    :param ownership_types: sequence or comma string of ``SELF``, ``CLIENT_OWNED``, ``ON_BEHALF_OF``
    :param created_after: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    :param created_before: the same
    :param filtering: list of ``{"field", "operator", "value"}``, added to those above
    :param sort: ``creation_time_ascending`` or ``creation_time_descending``
    :param page_size: rows a request
    :param max_items: rows after which to stop, default all
    :param output_path: any ``ObjectStoragePath`` URL; the object appears whole or not at all. A mapped task needs
        one for each: ``"s3://bucket/{{ task.business_id }}.ndjson"``
    :param output_conn_id: connection of the store; default the one in the URL, or the store's own default
    :param output_format: ``ndjson``, ``jsonl``, ``json`` or ``csv``; default by the suffix, which may be followed
        by ``.gz``
    :param if_exists: what an object that is there already means: ``"overwrite"``, ``"fail"`` or ``"skip"``
        (the task, before anything is asked of the API)
    :param if_empty: what a list without accounts means: ``"succeed"``, ``"skip"`` (the task) or ``"fail"``;
        after the latter two, what was there before stays
    :param whatsapp_conn_id: connection of type ``whatsapp``
    """

    template_fields: Sequence[str] = (
        "business_id",
        "edge",
        "fields",
        "ownership_types",
        "created_after",
        "created_before",
        "filtering",
        "sort",
        "page_size",
        "max_items",
        "output_path",
        "output_conn_id",
        "output_format",
        "if_exists",
        "if_empty",
        "whatsapp_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filtering": "json"}
    ui_color = "#d8f5e3"

    def __init__(
        self,
        *,
        business_id: str | int | None = None,
        edge: str = "client",
        fields: str | Sequence[str] | None = None,
        ownership_types: str | Sequence[str] | None = None,
        created_after: datetime | date | str | float | None = None,
        created_before: datetime | date | str | float | None = None,
        filtering: Sequence[Mapping[str, Any]] | None = None,
        sort: str | None = None,
        page_size: int | str = 100,
        max_items: int | str | None = None,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        output_format: str | None = None,
        if_exists: str = "overwrite",
        if_empty: str = "succeed",
        whatsapp_conn_id: str = WhatsAppHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.business_id = business_id
        self.edge = edge
        self.fields = fields
        self.ownership_types = ownership_types
        self.created_after = created_after
        self.created_before = created_before
        self.filtering = filtering
        self.sort = sort
        self.page_size = page_size
        self.max_items = max_items
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.output_format = output_format
        self.if_exists = if_exists
        self.if_empty = if_empty
        self.whatsapp_conn_id = whatsapp_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """The rows, or the manifest of the object that holds them.

        :raises AirflowFailException: what a retry cannot mend: bad input, token, permission
        :raises AirflowSkipException: as ``if_exists`` and ``if_empty`` say
        :raises GraphError: a passing fault, left to the task's ``retries``
        """
        read, target, client = self._checked_input()
        with failing_fast(), client:
            listing = _Progress(client.pages(read), self.log)
            if target is None:
                return self._to_xcom(listing)
            manifest = self._to_object(listing, read, target)
        self._tell_assets(context, manifest)
        return manifest

    def _checked_input(self) -> tuple[EdgeRead, Target | None, GraphClient]:
        # Here, since it loads fsspec, which shall not be while a DAG file is parsed.
        from airflow_provider_whatsapp.output import Target

        try:
            for name, choices in (("edge", tuple(EDGES)), ("if_exists", _IF_EXISTS), ("if_empty", _IF_EMPTY)):
                if getattr(self, name) not in choices:
                    raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}")
            hook = WhatsAppHook(self.whatsapp_conn_id)
            read = hook.waba_read(
                self.edge,
                self.business_id,
                fields=self.fields,
                ownership_types=self.ownership_types,
                created_after=self.created_after,
                created_before=self.created_before,
                filtering=self.filtering,
                sort=self.sort,
                page_size=self.page_size,
                max_items=self.max_items,
            )
            target = None
            if self.output_path is not None:
                target = Target(self.output_path, conn_id=self.output_conn_id, format=self.output_format)
                self._check_existing(target)
            return read, target, hook.get_conn()
        except ValueError as error:
            raise AirflowFailException(str(error)) from error

    def _check_existing(self, target: Target) -> None:
        if self.if_exists == "overwrite" or not target.exists():
            return
        if self.if_exists == "skip":
            raise AirflowSkipException(f"{target.uri} is there already, and if_exists is 'skip'")
        raise AirflowFailException(f"{target.uri} is there already, and if_exists is 'fail'")

    def _check_empty(self, count: int) -> None:
        if self.if_empty == "succeed" or count:
            return
        message = f"the listing is empty, and if_empty is {self.if_empty!r}"
        raise AirflowSkipException(message) if self.if_empty == "skip" else AirflowException(message)

    def _to_xcom(self, listing: _Progress) -> list[dict[str, Any]]:
        rows = list(listing)
        self._check_empty(len(rows))
        longest = conf.getint("core", "max_map_length", fallback=1024)
        if self.do_xcom_push and len(rows) > longest:
            self.log.warning(
                "%d accounts go to XCom, but a downstream task can be mapped over %d at most ([core] max_map_length). "
                "Give output_path and let later tasks read the object, or narrow the list by filters or max_items.",
                len(rows),
                longest,
            )
        return rows

    def _to_object(self, listing: _Progress, read: EdgeRead, target: Target) -> dict[str, Any]:
        def before_publish(count: int) -> None:
            self._check_empty(count)
            self._check_existing(target)

        stored = target.write(listing, [field.key for field in read.fields], before_publish=before_publish)
        self.log.info("Wrote %d accounts, %d bytes, to %s", stored.count, stored.bytes, stored.uri)
        return {
            **asdict(stored),
            "pages": listing.pages,
            "business_id": read.node_id,
            "edge": self.edge,
            "fields": [str(field) for field in read.fields],
            "truncated": listing.truncated,
        }

    def _tell_assets(self, context: Context, manifest: dict[str, Any]) -> None:
        # A DAG that an asset starts finds there which object is new.
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(manifest)


class _Progress:
    """The rows of all pages, telling the task's log of its progress.

    :param pages: of the edge
    :param log: of the task
    """

    def __init__(self, pages: Iterable[Page], log: Any) -> None:
        self.pages = 0
        self.truncated = False
        self._pages = pages
        self._log = log
        self._count = 0
        self._next_line = 0.0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row once."""
        page = None
        for page in self._pages:
            self.pages = page.number
            self.truncated = page.truncated
            self._count += len(page.rows)
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + _SECONDS_BETWEEN_PROGRESS_LINES
                self._tell("Listing", page)
            yield from page.rows
        if page is not None:
            self._tell("Listed", page)

    def _tell(self, doing: str, page: Page) -> None:
        usage = "" if page.usage is None else f", API usage {page.usage.percent:g} %"
        self._log.info("%s: page %d, %d accounts so far%s", doing, page.number, self._count, usage)
