"""Links from a task's page to Meta's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

_MANAGER = "https://business.facebook.com/latest/whatsapp_manager/overview/"


class WhatsAppManagerLink(BaseOperatorLink):
    """Leads to the business in Meta's WhatsApp Manager, and to the account that a sensor waits for."""

    name = "WhatsApp Manager"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address, or an empty text while the business is not known.

        :param operator: as it ran
        :param ti_key: of the task instance
        """
        business_id: Any = getattr(operator, "listed_business_id", None) or getattr(operator, "business_id", None)
        if not str(business_id or "").isdigit():
            return ""
        query = {"business_id": business_id}
        if account_id := getattr(operator, "awaited_waba_id", None):
            query["asset_id"] = account_id
        return f"{_MANAGER}?{urlencode(query)}"
