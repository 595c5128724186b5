"""Lists the WhatsApp Business Accounts (WABAs) of a business into XCom or object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_whatsapp._compat import AirflowException, AirflowFailException, AirflowSkipException
from airflow_provider_whatsapp.hooks.whatsapp import WhatsAppHook
from airflow_provider_whatsapp.operators._listing import WabaListing, failing_fast

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_whatsapp.storage.target import Target

_IF_EXISTS = ("overwrite", "fail", "skip")
_IF_EMPTY = ("succeed", "skip", "fail")


class WhatsAppListClientWabasOperator(WabaListing):
    """Lists the WABAs that clients share with a business (or that it owns): a complete list, or an error.

    XCom ``return_value`` is the list of rows or, with ``output_path``, a small manifest: ``uri``, ``format``,
    ``count``, ``bytes``, ``sha256``, ``pages``, ``business_id``, ``edge``, ``fields``, ``truncated``. An ``Asset``
    among the task's outlets gets the manifest as the ``extra`` of its event.

    https://developers.facebook.com/documentation/ads-commerce/marketing-api/reference/business/client_whatsapp_business_accounts

    All parameters of :class:`~airflow_provider_whatsapp.operators._listing.WabaListing`, and:

    :param if_exists: what an object that is there already means: ``"overwrite"``, ``"fail"`` or ``"skip"``
        (the task, before anything is asked of the API)
    :param if_empty: what a list without accounts means: ``"succeed"``, ``"skip"`` (the task) or ``"fail"``;
        after the latter two, what was there before stays
    """

    template_fields: Sequence[str] = (*WabaListing.template_fields, "if_exists", "if_empty")
    ui_color = "#d8f5e3"

    def __init__(self, *, if_exists: str = "overwrite", if_empty: str = "succeed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.if_exists = if_exists
        self.if_empty = if_empty

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """The rows, or the manifest of the object that holds them.

        :raises AirflowFailException: what a retry cannot mend: bad input, token, permission
        :raises AirflowSkipException: as ``if_exists`` and ``if_empty`` say
        :raises GraphError: a passing fault, left to the task's ``retries``
        """
        with failing_fast(ValueError):
            for name, choices in (("if_exists", _IF_EXISTS), ("if_empty", _IF_EMPTY)):
                if getattr(self, name) not in choices:
                    raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}")
            hook = WhatsAppHook(self.whatsapp_conn_id)
            read = self._read(hook)
            target = self._target()
            client = hook.get_conn()
        if target is not None:
            self._check_existing(target)
        with failing_fast(), client:
            progress = self._progress(client, read)
            if target is None:
                rows = list(progress)
                self._check_empty(len(rows))
                self._warn_if_too_long_to_map_over(rows)
                return rows

            def before_publish(count: int) -> None:
                self._check_empty(count)
                self._check_existing(target)

            return self._to_object(context, progress, progress, read, target, before_publish=before_publish)

    def _check_existing(self, target: Target) -> None:
        if self.if_exists == "overwrite" or not target.exists():
            return
        message = f"{target.uri} is there already, and if_exists is {self.if_exists!r}"
        raise AirflowSkipException(message) if self.if_exists == "skip" else AirflowFailException(message)

    def _check_empty(self, count: int) -> None:
        if self.if_empty == "succeed" or count:
            return
        message = f"the listing is empty, and if_empty is {self.if_empty!r}"
        raise AirflowSkipException(message) if self.if_empty == "skip" else AirflowException(message)
