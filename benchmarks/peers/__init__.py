"""The programs that are compared: each lists the accounts of a business into a file of NDJSON.

Each is written as the documentation of its library shows it. ``prepare`` imports what the program needs and returns
what is then measured.
"""
