"""Requests to a public service: with time-outs, repeated after failures, as the server asks for."""

import contextlib
import email.utils
import json
import math
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from features.progress import Notify
from mil.errors import FetchError
from mil.fetch.client import open_client, require
from mil.fetch.settings import Transfer
from mil.version import __version__

LONGEST_WAIT_S = 60.0  # between repeated requests, unless the server says otherwise
LONGEST_PAUSE_S = 900.0  # that a server may ask for
LONG_PAUSE_S = 172_800.0  # from which hours and minutes do not matter
# Answers after which a request is repeated: of a server or a gateway that is busy or out of order. One that
# does not know the method (501) or the version of HTTP (505) will not learn it.
PASSING = frozenset((408, 425, 429, *range(500, 600))) - {501, 505}
CONNECT_S = 20.0
FIRST_RETRIES = 2  # before a server has answered at all: there may be no network
SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
NOTED_S = 10.0  # of a wait from which a reader should know of it


class Passing(Exception):
    """A request failed in a way that may pass.

    Attributes:
        after_s: seconds that the server asks to wait; 0 if it does not say.
        lost_s: seconds without a byte before it failed.
        is_answer: whether the server answered, and refused.
    """

    def __init__(
        self, reason: str, after_s: float = 0.0, lost_s: float = 0.0, *, is_answer: bool = False
    ) -> None:
        super().__init__(reason)
        self.after_s, self.lost_s, self.is_answer = after_s, lost_s, is_answer


class Stopped(Exception):
    """The work was interrupted while a request was made."""


@dataclass
class Attempts:
    """Counts failures in a row, and waits between them longer each time, with jitter (0.5 to 1 of the time).

    Attributes:
        settings: how many, and the first wait.
        service: whose pause they observe.
    """

    settings: Transfer
    service: "Service"
    failures: int = 0
    _random: random.Random = field(default_factory=random.Random)

    def progressed(self) -> None:
        """Something new was received: count from the beginning."""
        self.failures = 0

    def failed(self, what: str, error: Passing) -> None:
        """Wait before the next request.

        Raises:
            FetchError: there were too many failures, or the server asks for too long a pause.
        """
        self.failures += 1
        if error.after_s > LONGEST_PAUSE_S:
            raise FetchError(
                f"{what}: {error}; the server asks to come back in {_pause(error.after_s)}. Run the same "
                "call again then: it continues from there."
            )
        retries, answered = self.settings.retries, self.service.has_answered
        retries = retries if answered else min(retries, FIRST_RETRIES)
        if self.failures > retries:
            times = "once" if self.failures == 1 else f"{self.failures} times in a row"
            proxy = "" if answered else ", and HTTPS_PROXY if this network has a proxy,"
            remedy = f"Check the connection{proxy} and run the same call again"
            if error.is_answer:
                remedy = "The server, or a proxy, refuses for now: run the same call again later"
            raise FetchError(f"{what}: {error}, {times}. {remedy}; it continues from there.")
        wait_s = min(self.settings.wait_s * 2 ** (self.failures - 1), LONGEST_WAIT_S)
        wait_s *= 0.5 + 0.5 * self._random.random()
        if error.after_s:
            self.service.pause(error.after_s)  # for all files: the server is at its limit
        longest_s = max(wait_s, error.after_s)
        if not answered or longest_s + error.lost_s >= NOTED_S:
            self.service.notify(
                f"{what}: {error}. Waiting {math.ceil(longest_s)} s, then try {self.failures + 1} of "
                f"{retries + 1}."
            )
        self.service.sleep(wait_s)


class Service:
    """A server that answers HTTP. Proxies of the environment are honoured.

    Args:
        address: without a slash at the end.
        settings: of the transfer.
        notify: called with why it waits, from any thread.
    """

    def __init__(self, address: str, settings: Transfer, notify: Notify | None = None) -> None:
        self.address, self.settings = address.rstrip("/"), settings
        self.notify = notify or _ignore
        self.stopped, self.has_answered = threading.Event(), False
        self._resume_at = 0.0
        self._httpx = require("httpx2")
        self._connect_s = min(CONNECT_S, settings.timeout_s)
        self._client = open_client(
            timeout=self._httpx.Timeout(settings.timeout_s, connect=self._connect_s),
            follow_redirects=True,
            headers={"User-Agent": f"sarcomil/{__version__}", "Accept-Encoding": "identity"},
            limits=self._httpx.Limits(max_connections=settings.parallel + 1),
        )  # fmt: skip

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._client.close()

    def attempts(self) -> Attempts:
        """A count of failures for one file or question."""
        return Attempts(self.settings, self)

    def pause(self, seconds: float) -> None:
        """Let no request begin before so many seconds have passed."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, and until a pause is over.

        Raises:
            Stopped: the work was interrupted.
        """
        until = time.monotonic() + seconds
        while (left := max(until, self._resume_at) - time.monotonic()) > 0:
            if self.stopped.wait(left):
                break
        if self.stopped.is_set():
            raise Stopped

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The answer to a request whose body is read piece by piece.

        Raises:
            Passing: the connection fails, or the server answers so that the request may be repeated.
            FetchError: the server refuses.
            Stopped: the work was interrupted.
        """
        self.sleep(0)
        with (
            self._failures(),
            self._client.stream("GET", url, headers=dict(headers)) as response,
        ):
            self.has_answered = True
            _check_status(url, response)
            yield response

    def ask(self, url: str, question: Mapping[str, Any] | None = None) -> bytes:
        """The answer to a small question, repeated until there is one.

        Args:
            url: of the question.
            question: is posted as JSON; None asks by GET.

        Raises:
            FetchError: the server refuses, or does not answer.
        """
        attempts = self.attempts()
        while True:
            try:
                self.sleep(0)
                with self._failures():
                    response = (
                        self._client.get(url)
                        if question is None
                        else self._client.post(url, json=dict(question))
                    )
                    self.has_answered = True
                    _check_status(url, response)
                    return bytes(response.content)
            except Passing as error:
                attempts.failed(url, error)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what fails on the way into ``Passing``, and what cannot be asked into an error of the user."""
        httpx = self._httpx
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise FetchError(
                f"{self.address}: {str(error).rstrip('.')}. Check the address of the server."
            ) from error
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            lost_s = self._connect_s if connecting else self.settings.timeout_s
            raise Passing(f"no answer within {lost_s:g} s", lost_s=lost_s) from error
        except (httpx.RequestError, httpx.StreamError) as error:
            raise Passing(f"the connection failed ({error or type(error).__name__})") from error


def _ignore(_text: str) -> None:
    """Tell nobody."""


def _check_status(url: str, response: Any) -> None:
    status = int(response.status_code)
    if status in (200, 206, 416):
        return
    answer = f"the server answers {status} {response.reason_phrase}".rstrip()
    if status in PASSING:
        after_s = _retry_after_s(response.headers.get("Retry-After", ""))
        raise Passing(answer, after_s, is_answer=True)
    no_service = "It does not do what is asked: use another mirror, or another proxy"
    remedy = {
        401: "It needs a permission that this program does not ask for: only open files are fetched",
        403: "It needs a permission that this program does not ask for: only open files are fetched",
        404: "It is not there (any more): run the same call again, which asks for the list anew",
        407: "The proxy asks for a password: put it into HTTPS_PROXY",
        501: no_service,
        505: no_service,
    }.get(status, "Check the address of the server, or try again later")
    raise FetchError(f"{url}: {answer}. {remedy}.")


def _retry_after_s(text: str) -> float:
    """Seconds, of a number or a date; 0 where it says neither."""
    if SECONDS.fullmatch(text.strip()):
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        when = email.utils.parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return 0.0


def _pause(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < LONG_PAUSE_S else "more than two days"


def parse_answer(source: str, content: bytes) -> Any:
    """The JSON of an answer.

    Raises:
        FetchError: it is none, as where a portal's login page answers.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        start = content[:60].decode(errors="replace")
        raise FetchError(
            f"{source} answers otherwise than the service does ({start!r}...). Check the address of the "
            "server, and whether a proxy or a login page stands in between."
        ) from error
