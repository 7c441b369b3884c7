"""Packages that a first map does not need, and are imported where they are used."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(package: str, extra: str) -> Iterator[None]:
    """Within: an import of a package that is missing is an ImportError that says how it is installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"this needs {package}, which is not installed: pip install {package}, or 'grad-cam[{extra}]'"
        raise ImportError(message) from error
