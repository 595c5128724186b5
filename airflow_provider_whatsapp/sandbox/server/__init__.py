"""How the simulated Graph API is served: HTTP, faults, quotas and the record of received requests."""
