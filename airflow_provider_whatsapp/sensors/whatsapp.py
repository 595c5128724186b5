"""Sensors that wait for WhatsApp Business Accounts (WABAs)."""

from airflow_provider_whatsapp.sensors._wabas import WhatsAppWabasSensor

__all__ = ["WhatsAppWabasSensor"]
