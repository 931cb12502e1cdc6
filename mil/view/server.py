"""A gallery over HTTP for a browser on this machine: read only, behind a token, with a fixed table of routes.

    GET /<token>/                                            the page
    GET /<token>/contents.json
    GET /<token>/slides/<number>/slide.json
    GET /<token>/slides/<number>/overview.jpg
    GET /<token>/slides/<number>/tiles/<level>/<column>_<row>.jpg
    GET /<token>/slides/<number>/scores/<layer>.json
    GET /<token>/slides/<number>/verdicts/<layer>.json

No part of a request becomes part of a path on disk: slides and layers are requested by number.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from features.errors import SarcomilError
from mil.report.template import render_template
from mil.view.gallery import Gallery
from mil.view.turns import Turns

HOST = "127.0.0.1"
IDLE_SECONDS = 60  # until an idle connection is closed
NUMBER = r"([0-9]{1,7})"


class Viewer(ThreadingHTTPServer):
    """Serves one gallery until it is shut down.

    Args:
        gallery: the content.
        port: to listen on; 0 chooses a free one.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # a browser, or several windows of it, may ask for many tiles at once

    def __init__(self, gallery: Gallery, port: int = 0) -> None:
        self.gallery = gallery
        self.turns = Turns(os.cpu_count() or 1)
        self.token = secrets.token_urlsafe(24)
        super().__init__((HOST, port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """URL of the page; whoever has it may look."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Ignore a browser that no longer waits for a tile."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request; the base class refuses every method but GET."""

    server: Viewer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sarcomil", ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer from the table of routes if host and token are right."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            # Else a foreign page whose name resolves to this machine could read the answers (DNS rebinding).
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to 127.0.0.1 only.")
            return
        token, _, route = self.path[1:].partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that the viewer printed.")
            return
        for pattern, answer in ROUTES:
            if match := pattern.fullmatch(route):
                self._answer(answer, *map(int, match.groups()))
                return
        self._refuse(HTTPStatus.NOT_FOUND, "No such address.")

    def _answer(self, answer: Callable[..., tuple[str, bytes]], *numbers: int) -> None:
        try:
            if answer is _tile:
                with self.server.turns.take():
                    if self._abandoned():
                        raise ConnectionAbortedError
                    kind, body = answer(self.server.gallery, *numbers)
            else:
                kind, body = answer(self.server.gallery, *numbers)
        except SarcomilError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except IndexError:
            self._refuse(HTTPStatus.NOT_FOUND, "No slide or layer has this number.")
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _abandoned(self) -> bool:
        """Whether the browser has closed the connection, as it does with a tile that left the window."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, "text/plain; charset=utf-8", why.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        cached = kind == "image/jpeg" and status == HTTPStatus.OK
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "private, max-age=3600" if cached else "no-store",
            "Content-Security-Policy": policy(),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal is the user's."""


@cache
def page() -> str:
    """The page; it requests all data itself, so it needs no templating."""
    return render_template("view/page.html")


@cache
def policy() -> str:
    """Content security policy: the page's own style and script, and this server's answers."""
    hashes = {}
    for kind in ("style", "script"):
        [text] = re.findall(rf"<{kind}>(.*?)</{kind}>", page(), flags=re.DOTALL)
        hashes[kind] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "img-src 'self' data:; connect-src 'self'; "
        f"style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
    )


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value, allow_nan=False).encode()


def _tile(gallery: Gallery, *place: int) -> tuple[str, bytes]:
    return _jpeg(gallery.tile(*place))


def _jpeg(picture: bytes) -> tuple[str, bytes]:
    return "image/jpeg", picture


ROUTES: tuple[tuple[re.Pattern[str], Callable[..., tuple[str, bytes]]], ...] = tuple(
    (re.compile(pattern), answer)
    for pattern, answer in (
        ("", lambda _gallery: ("text/html; charset=utf-8", page().encode())),
        (r"contents\.json", lambda gallery: _json(gallery.contents())),
        (rf"slides/{NUMBER}/slide\.json", lambda gallery, slide: _json(gallery.slide(slide))),
        (rf"slides/{NUMBER}/overview\.jpg", lambda gallery, slide: _jpeg(gallery.overview(slide))),
        (rf"slides/{NUMBER}/tiles/{NUMBER}/{NUMBER}_{NUMBER}\.jpg", _tile),
        (
            rf"slides/{NUMBER}/scores/{NUMBER}\.json",
            lambda gallery, slide, layer: _json(gallery.scores(slide, layer)),
        ),
        (
            rf"slides/{NUMBER}/verdicts/{NUMBER}\.json",
            lambda gallery, slide, layer: _json(gallery.verdict(slide, layer)),
        ),
    )
)
