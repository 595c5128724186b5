"""The content of the simulated Graph API: nodes, edges, rows and analytics; independent of HTTP."""
