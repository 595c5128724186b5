"""Writes rows as one object in object storage, which appears whole or not at all."""
