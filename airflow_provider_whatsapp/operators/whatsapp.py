"""Operators that list WhatsApp Business Accounts (WABAs), and their edges, into XCom or object storage."""

from airflow_provider_whatsapp.operators._list_waba_edge import WhatsAppListWabaEdgeOperator
from airflow_provider_whatsapp.operators._list_wabas import WhatsAppListWabasOperator

__all__ = ["WhatsAppListWabaEdgeOperator", "WhatsAppListWabasOperator"]
