"""`mil volumes`: CT and MRI series to bags."""

import itertools
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal

import typer

from cli.app import Group, app
from cli.options import UsageError, part_of, verb, writable, wrong_use
from cli.shown_volumes import show_applied, show_contours, show_radiomics, show_series, show_volumes
from features.errors import InputError
from features.recipe import Encoding, Recipe
from features.volumes.recipe import VolumeRecipe
from mil.contouring.settings import ContourSettings

volumes = typer.Typer(
    name="volumes",
    cls=Group,
    help="CT and MRI: list the series of patients, and embed the slices of their tumours.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(volumes)


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Settings of `mil volumes table`."""

    folder: Path = field(
        metadata={
            "argument": "FOLDER",
            "help": "A folder with one folder per patient: DICOM, NIfTI, NRRD or MetaImage.",
        }
    )
    out: Path = field(metadata={"help": "The table to write, e.g. volumes.csv."})


@dataclass(frozen=True, kw_only=True)
class SeriesReading:
    """How a table of series is read."""

    PANEL: ClassVar[str] = "Table"

    roi: str = field(
        default="",
        metadata={
            "help": "The region, where the table names none: its name in the structure sets, or its number "
            "in label maps."
        },
    )
    cases: Path | None = field(
        default=None,
        metadata={
            "help": "Table with one row per case, as label, age or split, whose columns are added to those "
            "of the table of series."
        },
    )


@dataclass(frozen=True, kw_only=True)
class VolumeOptions(VolumeRecipe, Encoding, SeriesReading):
    """Settings of `mil volumes extract`."""

    channels: tuple[str, ...] = field(
        default=(),
        metadata=fields(VolumeRecipe)[0].metadata,
    )
    table: Path = field(
        metadata={
            "argument": "TABLE",
            "help": "Table with case, modality and path, as `mil volumes table` writes it; mask, roi and "
            "timepoint may follow, and columns of the case, as label.",
        }
    )
    out: Path = field(
        metadata={
            "help": "The bag store: one <case>.h5 per examination, its films, and cohort.csv to learn from."
        }
    )
    channels_all: int = field(
        default=0,
        metadata={
            "help": "Instead of --channels: every choice of this many of the table's modalities, in their "
            "order there, each into a store of its own in --out.",
            "panel": "Volumes",
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of random weights.", "panel": "Backbone"})
    device: str = field(
        default="auto",
        metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`.", "panel": "Computing"},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace bags of another recipe instead of refusing them.", "once": True},
    )

    def __post_init__(self) -> None:
        if bool(self.channels) == bool(self.channels_all):
            raise UsageError(
                "Name the modalities to show: --channels CT,T1,PET, or --channels-all 3."
            )
        if self.channels_all not in (0, 1, 3):
            raise UsageError(f"--channels-all must be 1 or 3; got {self.channels_all}.")
        Encoding.__post_init__(self)
        if self.channels:
            VolumeRecipe.__post_init__(self)


@verb(volumes, TableOptions, examples=["mil volumes table patients --out volumes.csv"])
def table(options: TableOptions) -> None:
    """List the series of patients: modality, file, region and what is wrong with each.

    Patients are named by their folders; nothing that DICOM says of a person is written. Look the table
    through before `mil volumes extract`: name modalities as your study does, choose where two series are
    of one modality, and name the region (roi) where a structure set has several.
    """
    from cli.console import complain, counted, say
    from mil.api.preparing import list_series

    writable(options.out.parent)
    with wrong_use(InputError):
        rows = list_series(options.folder, out=options.out)
    problems = show_series(rows)
    say(f"Table: {options.out}. Next: mil volumes extract {options.out} --channels ... --out store")
    if problems:
        complain(f"{counted(problems, 'row')} to look at: see the column problems.")


@verb(
    volumes,
    VolumeOptions,
    examples=[
        "mil volumes extract volumes.csv --channels T1 --out volume-store --backbone test_resnet "
        "--weights random"
    ],
)
def extract(options: VolumeOptions) -> None:
    """Embed the slices of tumours on CT and MRI: one bag per examination.

    All modalities are brought to the grid of the one that the region was drawn on. A second run goes on
    where the first stopped, and a volume that fails does not stop the others: films/films.csv lists the
    outcome of each. The films are slides to `mil view` and `mil explain`, and cohort.csv is the table for
    `mil crossval`.
    """
    failed = 0
    for channels in _choices(options):
        failed += _extract(options, channels)
    if failed:
        raise SystemExit(1)


def _choices(options: VolumeOptions) -> list[tuple[str, ...]]:
    """The modalities of every store."""
    if options.channels:
        return [options.channels]
    from mil.data.volumes import modalities_of

    names = modalities_of(options.table)
    if len(names) < options.channels_all:
        raise UsageError(
            f"--channels-all is {options.channels_all}, and the table has {', '.join(names)}. Take fewer."
        )
    return list(itertools.combinations(names, options.channels_all))


def _extract(options: VolumeOptions, channels: tuple[str, ...]) -> int:
    """Fill one store; how many volumes failed."""
    from cli.console import Bars, warn
    from mil.data.volumes import extract_volumes

    out = options.out if options.channels else options.out / "+".join(channels)
    writable(out)
    values = {one.name: getattr(options, one.name) for one in fields(VolumeRecipe)}
    with wrong_use():
        recipe = VolumeRecipe(**values | {"channels": channels})
    with wrong_use(InputError):
        result = extract_volumes(
            options.table,
            out,
            volumes=recipe,
            recipe=Recipe(**vars(part_of(options, Encoding)), seed=options.seed),
            roi=options.roi,
            cases=options.cases,
            device=options.device,
            overwrite=options.overwrite,
            progress=Bars(),
            notify=warn,
        )  # fmt: skip
    show_volumes(result, out)
    return len(result.failed)


@dataclass(frozen=True, kw_only=True)
class ContourOptions(ContourSettings, SeriesReading):
    """Settings of `mil volumes contour`."""

    modality: str = field(
        default="",
        metadata={
            "help": "The modality of the table that is contoured, e.g. CT. Needed without --apply.",
            "panel": "Volumes",
        },
    )
    apply: Path | None = field(
        default=None,
        metadata={
            "help": "A finished run of this command: its network contours the volumes of the table, nothing "
            "is trained, and masks of the table judge it.",
        },
    )

    table: Path = field(
        metadata={
            "argument": "TABLE",
            "help": "Table with case, modality, path and mask, as `mil volumes table` writes it; volumes "
            "without a mask are contoured by a network of all that have one.",
        }
    )
    out: Path = field(
        metadata={
            "help": "The run folder to write: masks, scores.csv, and volumes.csv, which names the masks."
        }
    )
    folds: int = field(default=5, metadata={"help": "Folds of whole patients.", "panel": "Folds"})
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )

    def __post_init__(self) -> None:
        if self.apply:
            self._check_applied()
            return
        if not self.modality:
            raise UsageError(
                "--modality is missing: the modality of the table that is contoured, e.g. CT."
            )
        ContourSettings.__post_init__(self)
        if self.folds < 2:
            raise UsageError(f"--folds must be at least 2; got {self.folds}. Use 5.")

    def _check_applied(self) -> None:
        """Refuse settings of training, of which nothing is done."""
        trained = {one.name: one.default for one in fields(ContourSettings)} | {"folds": 5}
        for name, default in trained.items():
            if name != "modality" and getattr(self, name) != default:
                raise UsageError(
                    f"--{name.replace('_', '-')} is a setting of training, and --apply trains nothing: the "
                    "network keeps its own. Leave it out."
                )
        if self.cases:
            raise UsageError("--cases adds columns to learn from, and --apply trains nothing.")


@verb(
    volumes,
    ContourOptions,
    examples=[
        "mil volumes contour volumes.csv --modality T1 --field-mm 48 --width 2 --steps 4 --folds 2 "
        "--out contours",
        "mil volumes contour volumes.csv --apply contours --out applied",
    ],
)
def contour(options: ContourOptions) -> None:
    """Draw the region of CT or MRI with a 2.5D network, which sees neighbouring slices; judge it by patient.

    Each volume is contoured by a network that has not seen its patient. Its Dice and Hausdorff distance in
    millimetres are compared with those of the best intensity window, of the mean location, and of the whole
    field. Bags of these masks remember whose masks the networks have seen, and `mil crossval` refuses to test
    those patients. The run keeps a network of all its patients: `--apply RUN` contours new ones by it.
    """
    from cli.console import Bars, notify, show_tables
    from mil.api.contouring import contour_volumes
    from mil.contouring.evaluation import evaluation_tables

    writable(options.out)
    if options.apply:
        _apply_contours(options, options.apply)
        return
    with wrong_use(InputError):
        contoured = contour_volumes(
            options.table,
            out=options.out,
            settings=part_of(options, ContourSettings),
            folds=options.folds,
            roi=options.roi,
            cases=options.cases,
            overwrite=options.overwrite,
            progress=Bars(),
            notify=notify,
        )
    show_tables(evaluation_tables(contoured.evaluation))
    show_contours(contoured)
    if contoured.failed:
        raise SystemExit(1)


def _apply_contours(options: ContourOptions, network: Path) -> None:
    """Contour the volumes of a table by the network of a run."""
    from cli.console import Bars, notify, show_tables
    from mil.api.contouring import apply_contours
    from mil.contouring.evaluation import evaluation_tables

    with wrong_use(InputError):
        applied = apply_contours(
            options.table,
            network,
            out=options.out,
            modality=options.modality,
            roi=options.roi,
            overwrite=options.overwrite,
            progress=Bars(),
            notify=notify,
        )
    if applied.evaluation.scores:
        show_tables(evaluation_tables(applied.evaluation))
    show_applied(applied)
    if applied.failed:
        raise SystemExit(1)


@dataclass(frozen=True, kw_only=True)
class RadiomicsOptions:
    """Settings of `mil volumes radiomics`."""

    table: Path = field(
        metadata={
            "argument": "FEATURES",
            "help": "Table of features with a column case, as pyradiomics, LIFEx, MIRP or Nyxus write it: a "
            "row per case, or, with a column modality, per case and modality.",
        }
    )
    out: Path = field(metadata={"help": "The bag store: one <case>.h5 per case, and features.csv."})
    repeat: Path | None = field(
        default=None,
        metadata={
            "help": "Features of the cases that were drawn twice, by their second drawing.",
        },
    )
    icc: float = field(
        default=0.85,
        metadata={
            "help": "Lowest intraclass correlation between both drawings of a feature that is used.",
        },
    )
    icc_form: Literal["ICC2", "ICC3"] = field(
        default="ICC2",
        metadata={
            "help": "ICC(2,1), to which an offset is disagreement, or ICC(3,1), to which it is none.",
        },
    )
    columns: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Name of features of another tool, with `*` for any letters; repeatable."
        },
    )


@verb(
    volumes,
    RadiomicsOptions,
    examples=["mil volumes radiomics radiomics.csv --repeat second-reading.csv --out radiomics"],
)
def radiomics(options: RadiomicsOptions) -> None:
    """Make bags of one row of a table of radiomics, for models that pool.

    With a second reading, features on which both do not agree are left out. No outcome is read, so this
    choice is no leak. Columns that are not named like features are never learnt from.
    """
    from mil.radiomics.bags import radiomics_bags

    writable(options.out)
    with wrong_use(InputError):
        result = radiomics_bags(
            options.table,
            options.out,
            repeat=options.repeat,
            icc=options.icc,
            icc_form=options.icc_form,
            columns=options.columns,
        )
    show_radiomics(result, options.out)
    if result.incomplete:
        raise SystemExit(1)
