"""What the simulated Graph API has and answers: nodes, edges, rows and analytics. Nothing here knows HTTP."""
