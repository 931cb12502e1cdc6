"""What the Imaging Data Commons has: the index of its series, and the files of a series in its bucket."""

import csv
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree.ElementTree import Element, ParseError

from features.choices import suggest
from features.regions.xml_tree import parse_xml
from mil.errors import FetchError
from mil.fetch.client import require
from mil.fetch.service import Service

VARIABLE, INDEX_VARIABLE = "SARCOMIL_IDC_SERVER", "SARCOMIL_IDC_INDEX"
BUCKET_ADDRESS = "https://{bucket}.s3.amazonaws.com"
# Of the index: https://github.com/ImagingDataCommons/idc-index-data, one row per series.
COLUMNS = (
    "collection_id", "analysis_result_id", "PatientID", "SeriesInstanceUID", "PatientAge", "PatientSex",
    "Modality", "SeriesDescription", "instanceCount", "license_short_name", "source_DOI", "aws_bucket",
    "crdc_series_uuid", "series_size_MB",
)  # fmt: skip
BATCH_ROWS = 1 << 16
UUID = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{7,}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{2,62}")
OBJECT_NAME = re.compile(r"[\w][\w.-]*")
MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class IndexedSeries:
    """A series of the index.

    Attributes:
        case: the patient within the collection.
        modality: of DICOM: CT, MR, PT, SM (slide microscopy), RTSTRUCT, RTDOSE, SEG, ...
        description: of the series; of a slide how the tissue was prepared and what it is of.
        uid: SeriesInstanceUID.
        bucket, uuid: where its files are.
        n_files, n_bytes: of it.
        age, sex: of the patient, as DICOM writes them; empty where they are not known.
        licence, doi: of the series.
        is_analysis: whether others made it from the collection's images.
    """

    case: str
    modality: str
    description: str
    uid: str
    bucket: str
    uuid: str
    n_files: int
    n_bytes: int
    age: str
    sex: str
    licence: str
    doi: str
    is_analysis: bool


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in a bucket; ``md5`` is empty where the service does not state it."""

    url: str
    key: str
    size: int
    etag: str
    md5: str


def find_series(collection: str, index: Path | None = None) -> tuple[IndexedSeries, ...]:
    """All series of a collection, by patient, modality and UID.

    Args:
        collection: as ``soft_tissue_sarcoma``.
        index: of the series, as Parquet or CSV; that of the package idc-index-data if not given.

    Raises:
        FetchError: there is no such collection, the index cannot be read, or a package is missing.
    """
    rows = _csv_rows if index and index.suffix.lower() == ".csv" else _parquet_rows
    try:
        series = [_series(row) for row in rows(index, collection)]
        if not series:
            names = sorted({str(row["collection_id"]) for row in rows(index, "")})
            raise FetchError(
                f"There is no collection {collection!r}.{suggest(collection, names)} The index has "
                f"{len(names)}; one of a later release may have more: pip install -U idc-index-data."
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise FetchError(
            f"The index of the Imaging Data Commons cannot be read ({error!r}). Install it again, or set "
            "index to another: a Parquet or CSV file with the columns of idc-index-data."
        ) from error
    return tuple(sorted(series, key=lambda one: (one.case, one.modality, one.uid)))


def bucket_address(server: str, bucket: str) -> str:
    """Where a bucket answers: at a mirror it is a folder."""
    return f"{server.rstrip('/')}/{bucket}" if server else BUCKET_ADDRESS.format(bucket=bucket)


def list_files(service: Service, address: str, series: IndexedSeries) -> tuple[StoredFile, ...]:
    """The files of a series, by key.

    Args:
        service: that asks.
        address: of the bucket.
        series: whose files they are.

    Raises:
        FetchError: the bucket does not answer as it should, or has other files than the index says.
    """
    files, token = [], ""
    source = f"series {series.uid} of {series.case}"
    while True:
        question = {"list-type": "2", "prefix": f"{series.uuid}/"}
        if token:
            question["continuation-token"] = token
        try:
            root = parse_xml(service.ask(f"{address}/?{urlencode(question)}"))
            files += [
                _stored_file(element, address, series)
                for element in root
                if _tag(element) == "Contents"
            ]
        except (ParseError, ValueError, LookupError, TypeError) as error:
            raise FetchError(
                f"{source}: the bucket answers otherwise than expected ({error}). Check the address of the "
                "server, and whether a proxy or a login page stands in between."
            ) from error
        token = _text(root, "NextContinuationToken")
        if not token:
            break
    if len(files) != series.n_files:
        raise FetchError(
            f"{source}: the bucket has {len(files)} files, and the index says {series.n_files}. The index is "
            "of another release: pip install -U idc-index-data."
        )
    return tuple(sorted(files, key=lambda one: one.key))


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str) -> str:
    return next((child.text or "" for child in element if _tag(child) == name), "")


def _stored_file(element: Element, address: str, series: IndexedSeries) -> StoredFile:
    key, etag = _text(element, "Key"), _text(element, "ETag").strip('"').lower()
    folder, _, name = key.partition("/")
    if folder != series.uuid or not OBJECT_NAME.fullmatch(name):
        raise ValueError(f"a file is called {key!r}")
    size = int(_text(element, "Size"))
    # The tag of a file that was uploaded in parts is no checksum: it ends with their number.
    return StoredFile(
        url=f"{address}/{quote(key)}",
        key=key,
        size=size,
        etag=etag,
        md5=etag if MD5.fullmatch(etag) else "",
    )


def _series(row: Mapping[str, Any]) -> IndexedSeries:
    bucket, uuid = str(row["aws_bucket"]), str(row["crdc_series_uuid"])
    if not BUCKET.fullmatch(bucket) or not UUID.fullmatch(uuid):
        raise ValueError(f"bucket {bucket!r} and series {uuid!r} are no names")
    return IndexedSeries(
        case=str(row["PatientID"]),
        modality=str(row["Modality"]),
        description=" ".join(str(row["SeriesDescription"] or "").split()),
        uid=str(row["SeriesInstanceUID"]),
        bucket=bucket,
        uuid=uuid,
        n_files=int(row["instanceCount"]),
        n_bytes=round(float(row["series_size_MB"]) * 1e6),
        age=str(row["PatientAge"] or ""),
        sex=str(row["PatientSex"] or ""),
        licence=str(row["license_short_name"] or ""),
        doi=str(row["source_DOI"] or ""),
        is_analysis=bool(row["analysis_result_id"]),
    )


def _csv_rows(index: Path | None, collection: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a collection, or all."""
    assert index is not None
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if collection in ("", row["collection_id"]):
                yield row


def _parquet_rows(index: Path | None, collection: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a collection; of all only their collection."""
    parquet = _pyarrow("pyarrow.parquet")
    compute = _pyarrow("pyarrow.compute")
    path = index or Path(str(require("idc_index_data").IDC_INDEX_PARQUET_FILEPATH))
    columns = list(COLUMNS) if collection else ["collection_id"]
    with parquet.ParquetFile(path) as file:  # a million rows: a part at a time
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            names = batch.column("collection_id")
            if collection:
                yield from batch.filter(compute.equal(names, collection)).to_pylist()
            else:
                yield from ({"collection_id": name} for name in names.unique().to_pylist())


def _pyarrow(name: str) -> Any:
    require("pyarrow")
    return importlib.import_module(name)
