"""Fetching files: whole and verified under their names, in parts beside them, and never twice."""

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.files.atomic import flush_folder
from features.progress import Progress
from features.summary import format_bytes, listed
from mil.errors import FetchError
from mil.fetch.checksum import digest_file, is_tag, part_lengths
from mil.fetch.service import Attempts, Passing, Service, Stopped
from mil.fetch.space import check_space, disk_error
from mil.fetch.threads import in_threads

WRONG_CONTENT = 2  # times that a file arrives with a wrong checksum before it is given up
DIFFERENT_CONTENT = 3  # times that one without a checksum arrives, each time otherwise
PART = ".part"
VERSION_TAG = re.compile(r"[0-9a-f]{12}")  # of a part's name; one with another is not of a fetch


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        url: where it is.
        place: where it goes, relative to the folder.
        size: bytes.
        md5: in hexadecimal digits; empty where the service does not state it.
        version: what changes if the service replaces the file; its checksum, as a rule.
        tag: that the server has for the file, if it has one: an ETag without its quotation marks.
        id: as the service names it.
        case, slide: whose it is; the slide is empty for a file of a series.
    """

    url: str
    place: str
    size: int
    md5: str
    version: str
    id: str
    case: str = ""
    slide: str = ""
    tag: str = ""

    @property
    def has_checksum(self) -> bool:
        """Whether damage would be noticed."""
        return bool(self.md5 or part_lengths(self.size, self.tag))

    def part(self, folder: Path) -> Path:
        """The unfinished file; of another version it has another name."""
        tag = re.sub(r"\W", "", self.version)[:12]
        return folder / f"{self.place}.{tag}{PART}"


@dataclass
class Downloads:
    """What became of the files.

    Attributes:
        new, present: places of files that were fetched, and that were there already.
        failed: reasons by place.
        n_bytes: that were received.
        notes: what a reader should know.
        unverified: places of files of which nothing but the size could be compared.
        md5s: by place, of the files whose checksum the service does not state.
    """

    new: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    n_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    md5s: dict[str, str] = field(default_factory=dict)


def download(
    service: Service,
    files: Sequence[RemoteFile],
    folder: Path,
    progress: Progress,
    versions: dict[str, str],
    md5s: Mapping[str, str] | None = None,
) -> Downloads:
    """Fetch files that are not there yet, several at once.

    A file arrives as ``<name>.<version>.part``, is continued from its last byte, and has its own name only
    when size and checksum are right: whatever ends the process, the next call goes on.

    Args:
        service: whose files they are.
        files: to fetch.
        folder: to fill.
        progress: shows megabytes.
        versions: of the files that were fetched earlier, by place.
        md5s: of files that were fetched earlier and whose checksum the service does not state, by place.

    Raises:
        FetchError: the disk is or would be full, or two files have one place.
        OSError: the folder is not writable.
    """
    result = Downloads(md5s=dict(md5s or {}))
    refuse_twins(files)
    missing = [file for file in files if not _is_present(file, folder, service, versions, result)]
    _remove_old_parts(missing, folder)
    needed = sum(file.size - _part_bytes(file, folder) for file in missing)
    check_space(folder, needed)
    with progress.task("fetched", max(1, needed // 1_000_000), "MB") as advance:
        _fetch_all(service, missing, folder, result, _Megabytes(advance))
    if result.unverified:
        names = listed([Path(place).name for place in sorted(result.unverified)])
        result.notes.append(
            f"The service states no checksum of {names}, and the tag cannot be computed again: the size "
            "alone was compared."
        )
    return result


def refuse_twins(files: Sequence[RemoteFile]) -> None:
    """Refuse files of one place, of which the second would replace the first.

    Raises:
        FetchError: naming the file.
    """
    for place, n_files in Counter(file.place for file in files).items():
        if n_files > 1:
            raise FetchError(
                f"The service lists {n_files} files called {Path(place).name}. It may be "
                "replacing one: try again later."
            )


class _Megabytes:
    """Counts bytes of several threads, and shows whole megabytes."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self._lock = advance, threading.Lock()
        self.n_bytes, self._shown = 0, 0

    def add(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes += n_bytes
            if new := self.n_bytes // 1_000_000 - self._shown:
                self._shown += new
                self._advance(new)


def _is_present(
    file: RemoteFile, folder: Path, service: Service, versions: dict[str, str], result: Downloads
) -> bool:
    """Whether a file is there, whole: it has its name only if its checksum was right."""
    path = folder / file.place
    if path.is_dir():
        raise FetchError(f"{path} is a folder, and a file of this name is fetched. Move it away.")
    if not path.is_file():
        return False
    size = path.stat().st_size
    if versions.get(file.place, file.version) != file.version:
        result.notes.append(
            f"{file.place}: the service has replaced it ({format_bytes(file.size)}, before "
            f"{format_bytes(size)}). It is fetched again."
        )
        return False
    if size != file.size or (service.settings.verify and not _verified(file, path, result)):
        result.notes.append(f"{file.place}: was changed or is damaged. It is fetched again.")
        return False
    result.present.append(file.place)
    return True


def _verified(file: RemoteFile, path: Path, result: Downloads) -> bool:
    """Whether a file that is there has the content that it had, as far as can be known."""
    digest = digest_file(path, file.tag)
    if expected := file.md5 or result.md5s.get(file.place, ""):
        return digest.md5 == expected
    if file.tag not in digest.tags:
        result.unverified.append(file.place)
    return True


def _remove_old_parts(files: Sequence[RemoteFile], folder: Path) -> None:
    """Remove unfinished files that cannot be continued: of another version, or without a checksum.

    After a power cut a file may have its length and not its content, which only a checksum shows.
    """
    names: dict[Path, set[str]] = {}
    for file in files:
        path = folder / file.place
        names.setdefault(path.parent, set()).add(path.name)
    current = {file.part(folder) for file in files if file.has_checksum}
    for inside, own in names.items():
        for other in inside.glob(f"*{PART}"):
            name, tag, _ = [*other.name.rsplit(".", 2), "", ""][:3]
            if other not in current and name in own and VERSION_TAG.fullmatch(tag):
                other.unlink()


def _part_bytes(file: RemoteFile, folder: Path) -> int:
    part = file.part(folder)
    return min(part.stat().st_size, file.size) if part.is_file() else 0


def _fetch_all(
    service: Service,
    files: Sequence[RemoteFile],
    folder: Path,
    result: Downloads,
    received: _Megabytes,
) -> None:
    """Fetch files in threads; one that fails does not stop the others.

    Raises:
        FetchError, OSError: of the disk or the folder; no further file is begun.
    """

    def fetch(file: RemoteFile) -> None:
        try:
            _fetch(service, file, folder, received, result)
            result.new.append(file.place)
        except FetchError as error:
            result.failed[file.place] = str(error)
        except OSError as error:
            raise disk_error(error, folder / file.place) from error

    try:
        in_threads(service, files, fetch)
    finally:
        result.n_bytes = received.n_bytes


def _fetch(
    service: Service, file: RemoteFile, folder: Path, received: _Megabytes, result: Downloads
) -> None:
    """Fetch one file to its place.

    Raises:
        FetchError: the server refuses, has another file than it listed, or does not answer.
        Stopped: the work was interrupted.
        OSError: the disk is full or not writable.
    """
    path, part = folder / file.place, file.part(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    attempts = service.attempts()
    earlier: list[str] = []
    while True:
        _receive(service, file, part, attempts, received)
        digest = digest_file(part, file.tag)
        if digest.md5 == file.md5 or file.tag in digest.tags:
            break
        if not file.md5 and _is_all_that_can_be(file, digest.md5, earlier, result):
            result.unverified.append(file.place)
            break
        part.unlink()
        earlier.append(digest.md5)
        _refuse_wrong(file, earlier)
    if not file.md5:
        result.md5s[file.place] = digest.md5
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)
    flush_folder(path.parent)


def _is_all_that_can_be(
    file: RemoteFile, md5: str, earlier: Sequence[str], result: Downloads
) -> bool:
    """Whether a file with no known checksum is taken as it is.

    A tag that is not met is of damaged content, or was made in a way that is not known. The same content
    twice is not damaged; and a tag that is not known once is not looked for again in other files.
    """
    return not file.has_checksum or md5 in earlier or bool(result.unverified)


def _refuse_wrong(file: RemoteFile, arrived: Sequence[str]) -> None:
    """Give up a file that arrived too often with another content than it should have.

    Raises:
        FetchError: naming the last checksum.
    """
    if len(arrived) < (WRONG_CONTENT if file.md5 else DIFFERENT_CONTENT):
        return
    expected = f"and the service lists {file.md5}" if file.md5 else "each time with another"
    raise FetchError(
        f"{file.place}: arrived {len(arrived)} times with md5 {arrived[-1]}, {expected}. Nothing was left of "
        "it. Try again later, or through another connection or proxy."
    )


def _receive(
    service: Service, file: RemoteFile, part: Path, attempts: Attempts, received: _Megabytes
) -> None:
    """Continue the unfinished file until it has its size."""
    most = _size(part)
    while _size(part) < file.size or not part.exists():
        try:
            _receive_once(service, file, part, received)
            if _size(part) < file.size:
                raise Passing(f"the connection ended {file.size - _size(part):,} bytes early")
        except Passing as error:
            if _size(part) > most:
                attempts.progressed()
                most = _size(part)
            attempts.failed(file.place, error)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _receive_once(service: Service, file: RemoteFile, part: Path, received: _Megabytes) -> None:
    """One request for the rest of a file, written as it arrives.

    Raises:
        Passing: the connection was cut.
        FetchError: the server has another file than it listed.
    """
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and file.tag:  # of a file that was replaced meanwhile all is sent
        headers["If-Range"] = f'"{file.tag}"'
    with service.get(file.url, headers) as response:
        start = _checked_start(file, start, response)
        with part.open("ab" if start else "wb") as target:
            for piece in response.iter_raw():  # as it arrives: what is collected is lost in a cut
                if service.stopped.is_set():
                    raise Stopped
                if target.tell() + len(piece) > file.size:
                    raise _other_size(file, f"over {file.size:,}")
                target.write(piece)
                received.add(len(piece))


def _checked_start(file: RemoteFile, start: int, response: Any) -> int:
    """Where the answer begins: at the place that was asked for, or at 0 where the server sends all of it.

    Raises:
        FetchError: the server has another size than it listed, or sends another part.
    """
    if (coding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise FetchError(
            f"{file.place}: arrives compressed ({coding}), and was asked for as it is. A proxy or the mirror "
            "compresses it: use another, or none."
        )
    tag = response.headers.get("ETag", "").strip('"').lower()
    if file.tag and is_tag(tag) and tag != file.tag:
        raise FetchError(
            f"{file.place}: the server has another file (tag {tag}) than it lists (tag {file.tag}). It may "
            "be replacing the file: try again later."
        )
    if response.status_code == 416:
        raise _other_size(file, f"at most {start:,}")
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match and match[2] not in ("*", str(file.size)):
            raise _other_size(file, f"{int(match[2]):,}")
        if not match or int(match[1]) != start:
            raise FetchError(
                f"{file.place}: the server sends another part than was asked for. Delete "
                f"{file.part(Path())} and run the same call again."
            )
        return start
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != file.size:
        raise _other_size(file, f"{int(length):,}")
    return 0


def _other_size(file: RemoteFile, got: str) -> FetchError:
    return FetchError(
        f"{file.place}: the server has {got} bytes and lists {file.size:,}. It may be replacing the file: "
        "try again later."
    )


def leftover_note(names: Sequence[str], table: str) -> str:
    """What to say of files of an earlier selection."""
    return (
        f"{len(names)} of the files that are there belong to an earlier selection and are not in {table}: "
        f"{listed(names)}. They stay; delete them, or choose the earlier selection again."
    )
