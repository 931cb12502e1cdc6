"""A local server that answers as the Genomic and the Imaging Data Commons do, and fails as networks do."""

import csv
import hashlib
import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PIECE_BYTES = 20_000  # of content that is sent slowly


def content(name, size):
    """Bytes that belong to a name."""
    return random.Random(name).randbytes(size)


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def tag_of_parts(data, mib):
    """The tag of an object that a bucket took in parts."""
    parts = [data[i : i + (mib << 20)] for i in range(0, len(data), mib << 20)]
    digests = b"".join(hashlib.md5(one, usedforsecurity=False).digest() for one in parts)
    return f"{md5(digests)}-{len(parts)}"


def slide(
    name, size=None, *, case=None, sample_type="Primary Tumor", strategy=None, project="TCGA-SARC"
):
    """A file of the GDC; ``name`` without the UUID at its end."""
    size = 2_000 + len(name) if size is None else size
    own = random.Random(name)
    ids = [str(uuid.UUID(int=own.getrandbits(128))) for _ in range(2)]
    case = name[:12] if case is None else case
    diagnostic = "-DX" in name[13:]
    return {
        "file_id": ids[0],
        "file_name": f"{name}.{ids[1].upper()}.svs",
        "file_size": size,
        "md5sum": md5(content(ids[0], size)),
        "access": "open",
        "data_type": "Slide Image",
        "experimental_strategy": strategy or ("Diagnostic Slide" if diagnostic else "Tissue Slide"),
        "cases": [
            {
                "submitter_id": one,
                "project": {"project_id": project},
                "samples": [{"sample_type": sample_type, "submitter_id": name[:16]}],
            }
            for one in ([case] if isinstance(case, str) else case)
        ],
    }  # fmt: skip


def patient(name, diagnosis, *, project="TCGA-SARC", dead=None, alive=None, **facts):
    """A case of the GDC; days to death or to the last follow-up."""
    diagnoses = [
        {"primary_diagnosis": one, "age_at_diagnosis": 21_915, "days_to_last_follow_up": alive}
        for one in ([diagnosis] if isinstance(diagnosis, str) else diagnosis)
    ]
    return {
        "submitter_id": name,
        "project": {"project_id": project},
        "disease_type": "Soft tissue tumours",
        "demographic": {
            "gender": "female",
            "vital_status": "Dead" if dead is not None else "Alive" if alive is not None else None,
            "days_to_death": dead,
        },
        "diagnoses": diagnoses,
        **facts,
    }


def sarcomas():
    """Slides and cases with every trap of TCGA-SARC: (files, cases)."""
    spellings = {
        # Two of each subtype at the hospital DX, one elsewhere.
        "LMS": ["Leiomyosarcoma (LMS)", "Leiomyosarcoma, NOS", "Myxoid leiomyosarcoma"],
        "DDLPS": ["Dedifferentiated liposarcoma"] * 3,
        "UPS": [
            "Pleomorphic 'MFH' / Undifferentiated pleomorphic sarcoma",
            "Undifferentiated Pleomorphic Sarcoma (UPS)",
            "Giant cell 'MFH' / Undifferentiated pleomorphic sarcoma with giant cells",
        ],
        "MFS": ["Myxofibrosarcoma", "Fibromyxosarcoma"],
        "MPNST": ["Malignant Peripheral Nerve Sheath Tumors (MPNST)"] * 2,
        "SS": [
            "Synovial Sarcoma - Monophasic",
            "Synovial Sarcoma - Biphasic",
            "Sarcoma; synovial; poorly differentiated",
        ],
        "DF": ["Desmoid Tumor"],
    }
    files, cases = [], []
    number = 0
    for names in spellings.values():
        for name in names:
            number += 1
            case = f"TCGA-{'DX' if number % 2 else '3B'}-A{number:03d}"
            follow_up = {"dead": 100 + number} if number % 3 == 0 else {"alive": 500 + number}
            cases.append(patient(case, name, **follow_up))
            files += [
                slide(f"{case}-01Z-00-DX2"),
                slide(f"{case}-01Z-00-DX1"),
                slide(f"{case}-01A-01-TSA"),
            ]
    files += [slide(f"TCGA-DX-A001-01Z-00-DX{n}") for n in range(3, 31)]
    # Normal tissue of a case, frozen and even diagnostic; a case of normal and frozen tissue alone.
    files += [
        slide("TCGA-DX-A001-11A-01-TS1", sample_type="Solid Tissue Normal"),
        slide("TCGA-DX-A001-11A-00-DX1", sample_type="Solid Tissue Normal"),
        slide("TCGA-DX-A900-11A-00-DX1", sample_type="Solid Tissue Normal"),
        slide("TCGA-DX-A900-01A-01-BS1"),
    ]
    cases.append(patient("TCGA-DX-A900", "Leiomyosarcoma, NOS"))
    # A recurrence before the primary tumour in the list, a spelling that is in no table, two diagnoses.
    files += [
        slide("TCGA-3B-A901-02Z-00-DX1", sample_type="Recurrent Tumor"),
        slide("TCGA-3B-A901-01Z-00-DX1"),
        slide("TCGA-3B-A902-01Z-00-DX1"),
        slide("TCGA-3B-A903-01Z-00-DX1"),
        slide("TCGA-3B-A904-01Z-00-DX1", case=["TCGA-3B-A904", "TCGA-3B-A901"]),
        slide("TCGA-XX-0001-01Z-00-DX1", project="TCGA-LUAD"),
    ]
    cases += [
        patient("TCGA-3B-A901", "leiomyosarcoma, nos"),
        patient("TCGA-3B-A902", "Chordoma"),
        patient("TCGA-3B-A903", ["Leiomyosarcoma, NOS", "Carcinoma, NOS"]),
        patient("TCGA-3B-A904", "Leiomyosarcoma, NOS"),
        patient("TCGA-XX-0001", "Adenocarcinoma, NOS", project="TCGA-LUAD"),
    ]
    random.Random(0).shuffle(files)
    return files, cases


def real_sarcomas(tables):
    """The slides and cases that the service has of TCGA-SARC, by its own list and TCGA's outcomes."""
    with (tables / "tcga-sarc-slides.tsv").open(newline="") as file:
        files = [
            {
                "file_id": row["id"],
                "file_name": row["filename"],
                "file_size": int(row["size"]),
                "md5sum": row["md5"],
                "access": "open",
                "data_type": "Slide Image",
                "cases": [{"submitter_id": row["case"], "project": {"project_id": "TCGA-SARC"}}],
            }
            for row in csv.DictReader(file, delimiter="\t")
        ]
    with (tables / "tcga-sarc-outcome.csv").open(newline="") as file:
        cases = [
            patient(
                row["bcr_patient_barcode"],
                row["histological_type"],
                **{"dead" if row["OS"] == "1" else "alive": int(row["OS.time"])},
            )
            for row in csv.DictReader(file)
            if row["OS.time"].isdigit()
        ]
    return files, cases


class Network:
    """What the server has, how it fails, and what it sent.

    Attributes:
        files, cases: of the GDC.
        objects: bytes by key, of a bucket called ``bucket``.
        etags: by key, where they are no checksums.
        listed_etags: by key, where the list is older than the objects.
        contents: bytes by id, or a function of them, where they differ from what the list promises.
        faults: what befalls the next requests, by the beginning of their paths.
        sent: bytes of the bodies by path.
        requests: (method, path, Range).
        page: most hits of an answer.
        ends_after: hits, whatever the total.
        delay_s, pace_s: before content, and between its pieces.
        busiest: most requests for content at once.
    """

    def __init__(self):
        self.files, self.cases = sarcomas()
        self.objects, self.etags, self.contents = {}, {}, {}
        self.listed_etags = {}
        self.faults = defaultdict(deque)
        self.sent, self.requests = Counter(), []
        self.page = 10_000
        self.ends_after = None
        self.delay_s = self.pace_s = 0.0
        self.busiest = self._busy = 0
        self.address = ""
        self._lock = threading.Lock()

    def fault(self, path):
        with self._lock:
            for start, waiting in self.faults.items():
                if path.startswith(start) and waiting:
                    return waiting.popleft()
        return ""

    @contextmanager
    def busy(self):
        with self._lock:
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def content_of(self, file_id):
        file = next(one for one in self.files if one["file_id"] == file_id)
        data = self.contents.get(file_id)
        data = content(file_id, file["file_size"]) if data is None else data
        return data() if callable(data) else data

    def bytes_sent(self):
        return sum(n for path, n in self.sent.items() if path.startswith(("/data", "/bucket")))


@contextmanager
def running(network=None):
    """The server at work on a port of its own."""
    network = network or Network()
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"network": network})
    )
    server.daemon_threads = True
    network.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield network
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    network: Network

    def log_message(self, *_):
        pass

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._note("POST")
        if self._failed():
            return
        self._send(json.dumps(self._search(urlsplit(self.path).path, question)).encode())

    def do_GET(self):
        self._note("GET")
        place = urlsplit(self.path)
        path, question = unquote(place.path), parse_qs(place.query)
        if "list-type" in question:
            if not self._failed():
                self._send(_listing(self.network, question))
            return
        network = self.network
        with network.busy():
            time.sleep(network.delay_s)
            self._serve_content(path)

    def _serve_content(self, path):
        network = self.network
        if path.startswith("/data/"):
            data, self._tag = network.content_of(path.removeprefix("/data/")), ""
        elif (key := path.partition("/bucket")[2].partition("/")[2]) in network.objects:
            data = network.objects[key]
            self._tag = network.etags.get(key) or md5(data)
        else:
            self._send(b"no such thing", 404)
            return
        self._send_part(data)

    def _note(self, method):
        self.network.requests.append((method, self.path, self.headers.get("Range", "")))

    def _failed(self, fault=None):
        """Answer with the next fault that is a status: ``503`` or ``429 after 2``."""
        fault = self.network.fault(self.path) if fault is None else fault
        if not fault:
            return False
        status, _, after = fault.partition(" after ")
        if fault == "redirect":
            self._send(b"", 302, {"Location": self.path})
            return True
        if fault == "login":
            self._send(b"<html>Please log in")
            return True
        self._send(b"sorry", int(status), {"Retry-After": after} if after else {})
        return True

    def _send(self, body, status=200, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_part(self, data):
        fault = self.network.fault(self.path)
        if fault[:3].isdigit() or fault == "redirect":
            self._failed(fault)
            return
        tag = f'"{self._tag}"'
        wanted, headers, status, total = self.headers.get("Range", ""), {}, 200, len(data)
        headers |= {"ETag": tag} if self._tag else {}
        headers |= {"Content-Encoding": fault[6:]} if fault.startswith("coded ") else {}
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        same = self.headers.get("If-Range", tag) == tag
        if wanted and same and "no range" not in fault:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            data, status = data[start:], 206
            start += fault == "shifted"
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "no length" in fault:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if "cut" in fault:
            data = data[: int(fault.partition("cut ")[2])]
            self.close_connection = True
        size = PIECE_BYTES if self.network.pace_s else len(data)
        for start in range(0, len(data), size or 1):
            try:
                self.wfile.write(data[start : start + size])
            except OSError:
                self.close_connection = True
                return
            with self.network._lock:
                self.network.sent[urlsplit(self.path).path] += len(data[start : start + size])
            time.sleep(self.network.pace_s)

    def _search(self, path, question):
        hits = {"/files": self.network.files, "/cases": self.network.cases}.get(path)
        if hits is None:
            names = sorted({case["project"]["project_id"] for case in self.network.cases})
            hits = [{"project_id": name} for name in names]
        for condition in question.get("filters", {}).get("content", ()):
            field, values = condition["content"]["field"], condition["content"]["value"]
            hits = [hit for hit in hits if {*_values(hit, field.split("."))} & {*values}]
        key = question.get("sort", "").partition(":")[0]
        if key:
            hits = sorted(hits, key=lambda hit: hit[key])
        first, size = question.get("from", 0), min(question["size"], self.network.page)
        fields = [field.split(".") for field in question["fields"].split(",")]
        part = [
            _pruned(hit, fields) for hit in hits[: self.network.ends_after][first : first + size]
        ]
        return {"data": {"hits": part, "pagination": {"total": len(hits), "from": first}}}


def _values(value, parts):
    if isinstance(value, list):
        return [inner for one in value for inner in _values(one, parts)]
    if not parts:
        return [value]
    return _values(value.get(parts[0]), parts[1:]) if isinstance(value, dict) else []


def _pruned(value, fields):
    """The parts of a hit that were asked for, and no others."""
    if isinstance(value, list):
        return [_pruned(one, fields) for one in value]
    if not isinstance(value, dict):
        return value
    pruned = {}
    for name in {field[0] for field in fields}:
        inner = [field[1:] for field in fields if field[0] == name and len(field) > 1]
        if name in value:
            pruned[name] = _pruned(value[name], inner) if inner else value[name]
    return pruned


def _listing(network, question):
    """Objects of a bucket whose keys begin so, as S3 lists them."""
    [prefix] = question["prefix"]
    keys = sorted(key for key in network.objects if key.startswith(prefix))
    first = int(question.get("continuation-token", ["0"])[0])
    page = keys[first : first + network.page]
    more = first + len(page) < len(keys)
    tags = {key: md5(network.objects[key]) for key in page} | network.etags | network.listed_etags
    objects = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(network.objects[key])}</Size>"
        f"<ETag>&quot;{tags[key]}&quot;</ETag></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{first + len(page)}</NextContinuationToken>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}{token}'
        "</ListBucketResult>"
    ).encode()
