"""What the operator and the sensor share: what is listed, where it goes, and what the task's log says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import Asset, BaseOperator

from airflow_provider_whatsapp._compat import AirflowFailException, conf
from airflow_provider_whatsapp.graph.errors import GraphError
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.links.whatsapp import WhatsAppManagerLink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from airflow.sdk import Context

    from airflow_provider_whatsapp.graph.pages import Page
    from airflow_provider_whatsapp.graph.query import EdgeRead
    from airflow_provider_whatsapp.storage.target import Target
    from airflow_provider_whatsapp.transport.sync import GraphClient

_SECONDS_BETWEEN_PROGRESS_LINES = 10.0


class WabaListing(BaseOperator):
    """A task that lists the WABAs of a business into XCom or object storage.

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
        "whatsapp_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filtering": "json"}
    operator_extra_links = (WhatsAppManagerLink(),)

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
        self.whatsapp_conn_id = whatsapp_conn_id
        #: The business that was listed, also when it is that of the connection.
        self.listed_business_id: str | None = None

    def _read(self, hook: WhatsAppHook) -> EdgeRead:
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
        self.listed_business_id = read.node_id
        return read

    def _target(self) -> Target | None:
        if self.output_path is not None:
            # Here, since it loads fsspec, which shall not be while a DAG file is parsed.
            from airflow_provider_whatsapp.storage.target import Target

            return Target(self.output_path, conn_id=self.output_conn_id, format=self.output_format)
        if self.output_conn_id or self.output_format:
            raise ValueError("output_path: missing; output_conn_id and output_format say nothing without it")
        return None

    def _progress(self, client: GraphClient, read: EdgeRead) -> Progress:
        narrowed = "".join(f", {name} {value}" for name, value in read.params.items())
        self.log.info(
            "Listing the %s accounts of business %s, fields %s%s",
            self.edge,
            read.node_id,
            join_fields(read.fields),
            narrowed,
        )
        return Progress(client.pages(read), self.log)

    def _warn_if_too_long_to_map_over(self, rows: Sequence[object]) -> None:
        longest = conf.getint("core", "max_map_length", fallback=1024)
        if self.do_xcom_push and len(rows) > longest:
            self.log.warning(
                "%d accounts go to XCom, but a downstream task can be mapped over %d at most ([core] max_map_length). "
                "Give output_path and let later tasks read the object, or narrow the list by filters or max_items.",
                len(rows),
                longest,
            )

    def _to_object(
        self,
        context: Context,
        rows: Iterable[dict[str, Any]],
        progress: Progress,
        read: EdgeRead,
        target: Target,
        *,
        before_publish: Callable[[int], object],
    ) -> dict[str, Any]:
        stored = target.write(rows, [field.key for field in read.fields], before_publish=before_publish)
        self.log.info("Wrote %d accounts, %d bytes, to %s", stored.count, stored.bytes, stored.uri)
        manifest = {
            **asdict(stored),
            "pages": progress.pages,
            "business_id": read.node_id,
            "edge": self.edge,
            "fields": [str(field) for field in read.fields],
            "truncated": progress.truncated,
        }
        # A DAG that an asset starts finds there which object is new.
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(manifest)
        return manifest


class Progress:
    """The rows of all pages, telling the task's log how far they have come.

    :param pages: of the edge
    :param log: of the task
    """

    def __init__(self, pages: Iterable[Page], log: Any) -> None:
        #: How many pages came so far.
        self.pages = 0
        #: Whether ``max_items`` ended the listing although the API has more.
        self.truncated = False
        self._pages = pages
        self._log = log
        self._count = 0
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_PROGRESS_LINES

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row once."""
        page = None
        for page in self._pages:
            self.pages = page.number
            self.truncated = page.truncated
            self._count += len(page.rows)
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + _SECONDS_BETWEEN_PROGRESS_LINES
                self._log.info("%d pages, %d accounts so far%s", page.number, self._count, _usage(page))
            yield from page.rows
        if page is not None:
            cut = ", cut by max_items" if page.truncated else ""
            self._log.info("Listed %d accounts on %d pages%s%s", self._count, page.number, cut, _usage(page))


def _usage(page: Page) -> str:
    return "" if page.usage is None else f", API usage {page.usage.percent:g} %"


@contextmanager
def failing_fast(on: type[Exception] | tuple[type[Exception], ...] = GraphError) -> Iterator[None]:
    """Fail the task at once on what a retry cannot mend; leave the rest to the task's ``retries``.

    :param on: which errors are meant
    :raises AirflowFailException: instead of such an error, unless it is a retryable ``GraphError``; with it as
        ``__cause__``
    """
    try:
        yield
    except on as error:
        if getattr(error, "retryable", False):
            raise
        raise AirflowFailException(str(error)) from error
