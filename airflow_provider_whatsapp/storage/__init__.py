"""Writes rows to one object in object storage, which appears only when it is complete."""
