"""Serves the simulated Graph API: HTTP, faults, quotas and the record of received requests."""
