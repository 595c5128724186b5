"""Links from a task's page in Airflow to Meta's WhatsApp Manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["WhatsAppManagerLink"]

_MANAGER = "https://business.facebook.com/latest/whatsapp_manager/overview/"


class WhatsAppManagerLink(BaseOperatorLink):
    """Leads to the listed business in WhatsApp Manager, or to the one account that a sensor waits for."""

    name = "WhatsApp Manager"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the link, or an empty string while the business is not known.

        :param operator: the operator or sensor, after it ran
        :param ti_key: key of the task instance
        """
        business_id: Any = getattr(operator, "listed_business_id", None) or getattr(operator, "business_id", None)
        if not str(business_id or "").isdigit():
            return ""
        query = {"business_id": business_id}
        if waba_id := getattr(operator, "awaited_waba_id", None):
            query["asset_id"] = waba_id
        return f"{_MANAGER}?{urlencode(query)}"
