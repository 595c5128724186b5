"""Operators that list WhatsApp Business Accounts (WABAs) into XCom or object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.graph.arguments import shown
from airflow_provider_whatsapp.graph.retry import Patience
from airflow_provider_whatsapp.operators._failures import failing_fast
from airflow_provider_whatsapp.operators._listing import WabaTask

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.storage.target import Target

__all__ = ["WhatsAppListWabasOperator"]

_CHOICES = {"if_exists": ("overwrite", "fail", "skip"), "if_empty": ("succeed", "skip", "fail")}


class WhatsAppListWabasOperator(WabaTask):
    """Lists the WABAs of a business: a complete list, or an error.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a small manifest: ``uri``, ``format``,
    ``count``, ``bytes``, ``sha256``, ``pages``, ``business_id``, ``edge``, ``fields``, ``truncated``. An ``Asset``
    among the task's outlets gets the manifest as the ``extra`` of its event.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    :param business_id: id of the business portfolio; that of the connection by default
    :param edge: ``"client"`` for accounts that clients share with the business, ``"owned"`` for its own
    :param fields: sequence of names or comma string, nested ``{}`` allowed; id, name and ten more by default
    :param ownership_types: sequence or comma string of ``SELF``, ``CLIENT_OWNED``, ``ON_BEHALF_OF``; all by default
    :param created_after: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    :param created_before: datetime, ISO 8601 string or unix seconds; UTC where no zone is given
    :param filtering: list of ``{"field", "operator", "value"}``, added to the filters above
    :param sort: ``"creation_time_ascending"`` or ``"creation_time_descending"``; the API's own order by default
    :param page_size: number of accounts to ask for in one request
    :param max_items: number of accounts after which to stop; unlimited by default
    :param output_path: address of the object to write, any ``ObjectStoragePath`` URL; the rows go to XCom by default.
        The object appears whole or not at all. Each mapped task needs an object of its own:
        ``"s3://bucket/{{ task.business_id }}.ndjson"``
    :param output_conn_id: Airflow connection of the store; the one in the URL by default, else the store's own default
    :param output_format: ``"ndjson"``, ``"jsonl"``, ``"json"`` or ``"csv"``; by default the suffix of ``output_path``
        decides, which may be followed by ``.gz``
    :param whatsapp_conn_id: Airflow connection of type ``whatsapp``
    :param if_exists: what to do when the object exists already: ``"overwrite"`` it, ``"fail"`` the task, or ``"skip"``
        the task. The latter two are decided before the API is called
    :param if_empty: what to do when there are no accounts: ``"succeed"``, ``"skip"`` the task or ``"fail"`` it. After
        the latter two, an object that existed before is unchanged
    """

    template_fields: Sequence[str] = (*WabaTask.template_fields, "if_exists", "if_empty")
    ui_color = "#d8f5e3"

    def __init__(self, *, if_exists: str = "overwrite", if_empty: str = "succeed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.if_exists = if_exists
        self.if_empty = if_empty

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """The rows, or the manifest of the object that holds them.

        :raises AirflowFailException: if a retry cannot help: bad input, a bad token, a missing permission, or an object
            that exists with ``if_exists="fail"``
        :raises AirflowException: if there are no accounts with ``if_empty="fail"``; Airflow retries
        :raises AirflowSkipException: if ``if_exists`` or ``if_empty`` says to skip
        :raises GraphError: if the fault may pass; Airflow then retries as the task's ``retries`` say
        """
        with failing_fast(ValueError):
            self._check_choices()
            connection = self._load_connection()
            query = self._build_query(connection)
            target = self._open_target()

        def check(count: int) -> None:
            self._check_empty(count)
            self._check_exists(target)

        self._check_exists(target)
        with failing_fast(), self._open_client(connection, Patience()) as client:
            listing = self._start_listing(client, query)
            return self._deliver(context, listing, listing, query, target, check=check)

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {shown(getattr(self, name))} is not one of {', '.join(map(repr, choices))}")

    def _check_exists(self, target: Target | None) -> None:
        if target is None or self.if_exists == "overwrite" or not target.exists():
            return
        message = f"{target.uri} exists already, and if_exists is {self.if_exists!r}"
        raise AirflowSkipException(message) if self.if_exists == "skip" else AirflowFailException(message)

    def _check_empty(self, count: int) -> None:
        if self.if_empty == "succeed" or count:
            return
        message = f"the listing is empty, and if_empty is {self.if_empty!r}"
        raise AirflowSkipException(message) if self.if_empty == "skip" else AirflowException(message)
