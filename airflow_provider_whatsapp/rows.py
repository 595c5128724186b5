"""placeholder"""

from typing import TypedDict


class Manifest(TypedDict, total=False):
    uri: str
    count: int
    bytes: int
