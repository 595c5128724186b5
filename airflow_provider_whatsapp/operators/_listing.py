"""What operators and sensors share: their arguments, and the way from a connection to XCom or an object."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.sdk import Asset, AssetAlias, BaseOperator

from airflow_provider_whatsapp._compat import AirflowFailException, conf
from airflow_provider_whatsapp.graph.arguments import given, shown
from airflow_provider_whatsapp.graph.fields import join_fields
from airflow_provider_whatsapp.graph.query import WABA_ONLY_ARGUMENTS, Query, build_edge_query, parse_relationship
from airflow_provider_whatsapp.hooks._connection import WhatsAppConnection, load_connection
from airflow_provider_whatsapp.hooks._metrics import count_call
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.links.whatsapp import WhatsAppManagerLink
from airflow_provider_whatsapp.operators._failures import failing_fast
from airflow_provider_whatsapp.operators._lineage import Lineage, Sources
from airflow_provider_whatsapp.operators._progress import LoggedRows
from airflow_provider_whatsapp.storage.columns import UnfitValueError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.graph.pages import Page
    from airflow_provider_whatsapp.graph.patience import Patience
    from airflow_provider_whatsapp.graph.query import EdgeQuery
    from airflow_provider_whatsapp.storage.target import Target
    from airflow_provider_whatsapp.transport.sync import GraphClient

_Init = TypeVar("_Init", bound=Callable[..., None])
#: The query arguments with their defaults, in the order in which :func:`build_edge_query` has them.
_QUERY_PARAMETERS = {
    name: parameter
    for name, parameter in inspect.signature(build_edge_query).parameters.items()
    if name in Query.__optional_keys__
}
#: Those that any edge takes.
EDGE_ARGUMENTS = tuple(name for name in _QUERY_PARAMETERS if name not in WABA_ONLY_ARGUMENTS)
# Those that only a list of accounts takes.
_WABA_ARGUMENTS = tuple(name for name in _QUERY_PARAMETERS if name in WABA_ONLY_ARGUMENTS)


def _accept_query_arguments(*names: str) -> Callable[[_Init], _Init]:
    """Add query arguments to the signature of an ``__init__`` that takes them through ``**kwargs``.

    Airflow checks the arguments of ``partial`` and ``expand`` against the signature, and looks there for the names that
    it fills in from ``default_args``.
    """

    def decorate(init: _Init) -> _Init:
        signature = inspect.signature(init)
        *own, kwargs = signature.parameters.values()
        accepted = [*own, *(_QUERY_PARAMETERS[name] for name in names), kwargs]
        init.__signature__ = signature.replace(parameters=accepted)  # type: ignore[attr-defined]
        return init

    return decorate


def _take_query_arguments(task: BaseOperator, names: Sequence[str], kwargs: dict[str, Any]) -> None:
    for name in names:
        setattr(task, name, kwargs.pop(name, _QUERY_PARAMETERS[name].default))


class ListingTask(BaseOperator):
    """A task that lists something into XCom or object storage.

    The parameters are described in
    :class:`~airflow_provider_whatsapp.operators.whatsapp.WhatsAppListWabasOperator`.
    """

    template_fields: Sequence[str] = (
        *EDGE_ARGUMENTS,
        "output_path",
        "output_conn_id",
        "output_format",
        "whatsapp_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"filtering": "json"}
    #: What the rows are, for the log.
    noun: ClassVar[str] = "rows"

    @_accept_query_arguments(*EDGE_ARGUMENTS)
    def __init__(
        self,
        *,
        output_path: str | None = None,
        output_conn_id: str | None = None,
        output_format: str | None = None,
        whatsapp_conn_id: str = WhatsAppHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        _take_query_arguments(self, EDGE_ARGUMENTS, kwargs)
        super().__init__(**kwargs)
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.output_format = output_format
        self.whatsapp_conn_id = whatsapp_conn_id
        self._lineage: Lineage | None = None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What was read and written, for the OpenLineage provider; None if no object was written.

        :param task_instance: the task instance that has ended
        """
        return None if self._lineage is None else self._lineage.to_openlineage()

    def _load_connection(self) -> WhatsAppConnection:
        hook = WhatsAppHook(self.whatsapp_conn_id)
        # The trigger of a deferred sensor needs the id of a connection where a template rendered as blanks.
        self.whatsapp_conn_id = hook.whatsapp_conn_id
        return load_connection(hook, self.whatsapp_conn_id)

    def _query_arguments(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def _open_target(self) -> Target | None:
        """The object to write to, or None when the rows go to XCom."""
        conn_id, format = given(self.output_conn_id, None), given(self.output_format, None)
        if self.output_path is not None:
            self._check_path_of_mapped_tasks()
            # Imported here, because it loads fsspec, which parsing a DAG file must not wait for.
            from airflow_provider_whatsapp.storage.target import Target

            return Target(self.output_path, conn_id=conn_id, format=format)
        if conn_id or format:
            raise ValueError("output_path: missing; output_conn_id and output_format have no effect without it")
        return None

    def _check_path_of_mapped_tasks(self) -> None:
        dag = self.get_dag()
        given_to_partial = getattr(dag and dag.task_dict.get(self.task_id), "partial_kwargs", {}).get("output_path")
        if isinstance(given_to_partial, str) and not re.search(r"\{[{%]", given_to_partial):
            raise ValueError(
                f"output_path: every mapped task would write the same object, {shown(given_to_partial)}; put what "
                "differs between the tasks into the address, e.g. {{ task.business_id }}"
            )

    def _open_client(self, connection: WhatsAppConnection, patience: Patience) -> GraphClient:
        # Imported here, because parsing a DAG file must not wait for an HTTP library.
        from airflow_provider_whatsapp.transport.sync import GraphClient

        return GraphClient(connection.config, patience=patience, on_call=count_call)

    def _deliver(
        self,
        context: Context,
        rows: Iterable[dict[str, Any]],
        target: Target | None,
        *,
        columns: Sequence[str],
        sources: Sources,
        describe: Callable[[], dict[str, Any]],
        check: Callable[[int], object],
        before_publish: Callable[[Target, dict[str, Any]], object] = lambda target, manifest: None,
        owner: str = "",
        replace: bool = True,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Read the listing to its end and give its rows, or the manifest of the object that they were written to.

        :param context: Airflow's context of the task
        :param rows: rows to deliver
        :param target: the object to write to, or None to give the rows themselves
        :param columns: columns of a CSV or of Parquet
        :param sources: what the rows are read from
        :param describe: gives the part of the manifest that says what was listed, after the last row
        :param check: called with the number of rows before they are delivered; may raise to prevent that
        :param before_publish: called with the manifest before the object appears; may raise to prevent that
        :param owner: tells the task instance that writes the object from others
        :param replace: whether an object that is there may be replaced
        :raises AirflowFailException: if a value does not fit its column of Parquet, which no retry can mend
        """
        if target is None:
            delivered = list(self._short_enough_to_map_over(context, rows))
            check(len(delivered))
            return delivered

        with failing_fast(UnfitValueError), target.stage(rows, columns) as staged:
            check(staged.stored.count)
            manifest = {**asdict(staged.stored), **describe()}
            before_publish(target, manifest)
            staged.publish(owner=owner, replace=replace)
        stored = staged.stored
        self.log.info("Wrote %d %s, %d bytes, to %s", stored.count, self.noun, stored.bytes, stored.uri)
        return self._announce(context, manifest, lineage=Lineage(sources, manifest, columns))

    def _announce(self, context: Context, manifest: dict[str, Any], *, lineage: Lineage) -> dict[str, Any]:
        """Put the manifest into the events of the task's assets, tell the lineage, and give the manifest back."""
        self._lineage = lineage
        if context.get("ti") is not None:
            # In a task, Airflow has loaded its plugins anyway, which takes half a second.
            lineage.collect(WhatsAppHook(self.whatsapp_conn_id))
        # A DAG that is scheduled by the asset finds the address of the new object in the event.
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(manifest)
            elif isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(Asset(manifest["uri"]), extra=manifest)
        return manifest

    def _short_enough_to_map_over(self, context: Context, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows, which Airflow can map a later task over if that is what the DAG does with them.

        Airflow refuses a list that is too long only after all of it was read, and retries the task for it.

        :raises AirflowFailException: at the first row too many
        """
        longest = conf.getint("core", "max_map_length", fallback=1024) if self._is_mapped_over(context) else math.inf
        for number, row in enumerate(rows, start=1):
            if number > longest:
                message = (
                    f"A task can be mapped over at most {longest} {self.noun} ([core] max_map_length) and there are "
                    "more; give output_path, or narrow the list"
                )
                self.log.error(message)
                raise AirflowFailException(message)
            yield row

    def _is_mapped_over(self, context: Context) -> bool:
        # Airflow refuses a list under these conditions. If execute() is called directly, as in a test, there may be no
        # task instance and no DAG.
        instance: Any = context.get("ti")
        if instance is None or instance.is_mapped or self.get_dag() is None or not self.do_xcom_push:
            return False
        return any(True for _ in self.iter_mapped_dependants())


class WabaTask(ListingTask):
    """A task that lists the WABAs of a business into XCom or object storage.

    The parameters are described in
    :class:`~airflow_provider_whatsapp.operators.whatsapp.WhatsAppListWabasOperator`.
    """

    template_fields: Sequence[str] = ("business_id", "relationship", *_WABA_ARGUMENTS, *ListingTask.template_fields)
    operator_extra_links = (WhatsAppManagerLink(),)
    noun: ClassVar[str] = "accounts"

    @_accept_query_arguments(*_WABA_ARGUMENTS)
    def __init__(self, *, business_id: str | int | None = None, relationship: str = "client", **kwargs: Any) -> None:
        _take_query_arguments(self, _WABA_ARGUMENTS, kwargs)
        super().__init__(**kwargs)
        self.business_id = business_id
        self.relationship = relationship
        #: Id of the business that was listed, also when it came from the connection.
        self.listed_business_id: str | None = None

    def _build_query(self, connection: WhatsAppConnection) -> EdgeQuery:
        self.relationship = parse_relationship(self.relationship)
        arguments = self._query_arguments(tuple(_QUERY_PARAMETERS))
        query = connection.waba_query(self.business_id, relationship=self.relationship, **arguments)
        self.listed_business_id = query.node_id
        return query

    def _start_listing(self, query: EdgeQuery, pages: Iterable[Page]) -> LoggedRows:
        """The rows of the listing, which is read page by page while they are iterated over."""
        filters = "".join(f", {name} {value}" for name, value in query.params.items())
        self.log.info(
            "Listing the %s accounts of business %s, fields %s%s",
            self.relationship,
            query.node_id,
            join_fields(query.fields),
            filters,
        )
        return LoggedRows(pages, self.log)

    def _sources(self, query: EdgeQuery) -> Sources:
        return Sources([query.path])

    def _columns(self, query: EdgeQuery) -> list[str]:
        return [field.key for field in query.fields]

    def _describe(self, query: EdgeQuery, listing: LoggedRows) -> dict[str, Any]:
        """The part of the manifest that says what was listed."""
        return {
            "pages": listing.pages,
            "business_id": query.node_id,
            "relationship": self.relationship,
            "fields": [str(field) for field in query.fields],
            "truncated": listing.truncated,
        }
