"""The HTTP client: with the proxies and certificates of the environment, and what is wrong with these."""

import functools
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mil.errors import FetchError

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
SOCKS = ("socks5", "socks5h")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def require(name: str) -> ModuleType:
    """A package of the extra ``fetch``, imported where it is first used.

    Raises:
        FetchError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FetchError(
            f"Fetching needs the package {name}. Install it: pip install 'sarcomil[fetch]'."
        ) from error


def open_client(**settings: Any) -> Any:
    """A client with such settings.

    Raises:
        FetchError: a proxy or the certificates of the environment cannot be used.
    """
    httpx = require("httpx2")
    certificates = _certificates()
    try:
        return httpx.Client(verify=certificates, **settings)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise FetchError(_proxy_problem(_proxies(), error)) from error


@functools.cache
def _certificates() -> Any:
    """What servers are recognised by; to read it takes as long as many requests."""
    httpx = require("httpx2")
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        places = {name: os.environ[name] for name in CERTIFICATES if os.environ.get(name)}
        missing = {name: path for name, path in places.items() if not Path(path).exists()}
        named = [f"{name} ({path})" for name, path in (missing or places).items()]
        raise FetchError(
            f"The certificates in {' or '.join(named) or 'the store of this system'} cannot be read "
            f"({error}). Set SSL_CERT_FILE to a file in PEM format, or unset it."
        ) from error


def _proxies() -> dict[str, str]:
    """The proxies of the environment by the variables' names, in capitals or not."""
    names = [name for upper in PROXIES for name in (upper.lower(), upper)]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _proxy_problem(proxies: Mapping[str, str], error: Exception) -> str:
    """Which variable is wrong; its value stays unsaid: it may have a password."""
    schemes = {
        name: url.partition("://")[0].lower() for name, url in proxies.items() if "://" in url
    }
    socks = [name for name, scheme in schemes.items() if scheme in SOCKS]
    if isinstance(error, ImportError) and socks:
        return (
            f"{socks[0]} is a SOCKS proxy, for which the package socksio is missing. Install it: pip install "
            f"socksio; or unset {socks[0]} and set HTTPS_PROXY to a proxy that begins with http://."
        )
    for name, scheme in schemes.items():
        if scheme not in ("http", "https", *SOCKS):
            return (
                f"{name} begins with {scheme}://. A proxy's address begins with http://, https:// or "
                "socks5://; correct it or unset it."
            )
    named = ", ".join(proxies) or "the environment"
    return f"A proxy cannot be used ({str(error).rstrip('.')}). Check {named}."
