"""SUV of made PET series whose uptake is known, and every way in which files do not say enough."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from features.errors import VolumeError
from features.volumes.jobs import SeriesFiles, VolumeJob
from features.volumes.recipe import VolumeRecipe
from features.volumes.series import read_volume
from tests.small_series import series

UPTAKE = np.array([0.5, 1.0, 4.0, 12.0]).reshape(1, 2, 2)  # SUV
WEIGHT, DOSE, F18, GA68 = 68.0, 312e6, 6586.2, 4062.6
SLICES, FRAME_S = 3, 210.0
START = datetime(2019, 2, 3, 11, 40, 7)


def clock(moment):
    return moment.strftime("%H%M%S.%f")


def activity(seconds, half_life=F18, dose=DOSE):
    """(1, 2, 2) Bq/ml in the body, so long after injection, averaged over nothing."""
    return UPTAKE * dose / (1000 * WEIGHT) * 2.0 ** (-seconds / half_life)


def pet(folder, values, *, injected=START - timedelta(minutes=63), half_life=F18, nuclide="18F",
        change=lambda file, index: None, information=lambda item: None, **elements):  # fmt: skip
    """Write a series of PET; ``values`` gives the (2, 2) Bq/ml of a slice."""

    def complete(file, index):
        taken = START + timedelta(seconds=FRAME_S * index)
        file.Units, file.DecayCorrection, file.PatientWeight = "BQML", "START", WEIGHT
        file.CorrectedImage = ["NORM", "ATTN", "SCAT", "DECY"]
        file.SeriesDate, file.SeriesTime = START.strftime("%Y%m%d"), clock(START)
        file.AcquisitionDate, file.AcquisitionTime = taken.strftime("%Y%m%d"), clock(taken)
        file.ActualFrameDuration = int(1000 * FRAME_S)
        code = Dataset()
        code.CodeMeaning = nuclide
        item = Dataset()
        item.RadiopharmaceuticalStartTime = clock(injected)
        item.RadionuclideTotalDose, item.RadionuclideHalfLife = DOSE, half_life
        item.RadionuclideCodeSequence = Sequence([code])
        information(item)
        file.RadiopharmaceuticalInformationSequence = Sequence([item])
        wanted = values(index)
        file.RescaleSlope = f"{wanted.max() / 30000 * (1 + index):.10g}"[:16]
        file.RescaleIntercept = 0
        stored = np.round(wanted / float(file.RescaleSlope)).astype(np.uint16)
        file.PixelData, file.BitsStored, file.HighBit = stored.tobytes(), 16, 15
        change(file, index)

    blank = np.zeros((SLICES, 2, 2), np.uint16)
    return series(folder, blank, modality="PT", change=complete, **elements)


def suv(folder):
    return read_volume(folder, suv=True)


def corrected_to(seconds):
    """Values that are corrected to a time so long after injection."""
    return lambda _index: activity(seconds)[0]


SINCE = 63 * 60.0  # from injection to the start of the scan


def check(volume):
    np.testing.assert_allclose(volume.values, np.repeat(UPTAKE, SLICES, axis=0), rtol=2e-3)
    assert volume.facts["units"] == "GML"
    assert not any("values of PET are in" in note for note in volume.notes)


def test_activity_corrected_to_the_start_or_the_injection(tmp_path):
    check(suv(pet(tmp_path / "start", corrected_to(SINCE))))

    def admin(file, _index):
        file.DecayCorrection = "ADMIN"

    check(suv(pet(tmp_path / "admin", corrected_to(0), change=admin)))
    plain = read_volume(tmp_path / "start")
    np.testing.assert_allclose(plain.values[0], activity(SINCE)[0], rtol=1e-3)
    assert any("values of PET are in BQML" in note for note in plain.notes)


def test_activity_without_correction_has_a_time_for_every_slice(tmp_path):
    def measured(index):  # the mean of 2,000 moments of the slice
        moments = SINCE + FRAME_S * (index + (np.arange(2000) + 0.5) / 2000)
        return np.mean([activity(seconds)[0] for seconds in moments], axis=0)

    def raw(file, _index):
        file.DecayCorrection, file.CorrectedImage = "NONE", ["NORM", "ATTN"]

    check(suv(pet(tmp_path / "raw", measured, change=raw)))

    def short(file, index):
        raw(file, index)
        del file.ActualFrameDuration

    with pytest.raises(VolumeError, match="how long a slice took"):
        suv(pet(tmp_path / "short", measured, change=short))


def test_an_injection_before_midnight(tmp_path):
    late = datetime(2019, 2, 4, 0, 20)

    def after_midnight(file, index):
        taken = late + timedelta(seconds=FRAME_S * index)
        file.SeriesDate = file.AcquisitionDate = "20190204"
        file.SeriesTime, file.AcquisitionTime = clock(late), clock(taken)

    injected = late - timedelta(minutes=55)
    assert injected.day == 3
    check(suv(pet(tmp_path / "a", corrected_to(3300), injected=injected, change=after_midnight)))

    def slices_after_midnight(file, index):  # the scan itself runs into the next day
        start = datetime(2019, 2, 3, 23, 57)
        taken = start + timedelta(seconds=FRAME_S * index)
        file.SeriesDate, file.SeriesTime = "20190203", clock(start)
        file.AcquisitionDate, file.AcquisitionTime = taken.strftime("%Y%m%d"), clock(taken)

    injected = datetime(2019, 2, 3, 22, 57)
    check(
        suv(
            pet(tmp_path / "b", corrected_to(3600), injected=injected, change=slices_after_midnight)
        )
    )


def test_the_date_of_the_injection_is_read_where_it_fits(tmp_path):
    def dated(moment):
        def write(item):
            item.RadiopharmaceuticalStartDateTime = moment.strftime("%Y%m%d%H%M%S.%f+0100")
            item.RadiopharmaceuticalStartTime = clock(moment)

        return write

    injected = START - timedelta(minutes=63)
    check(suv(pet(tmp_path / "a", corrected_to(SINCE), information=dated(injected))))
    shifted = suv(
        pet(tmp_path / "b", corrected_to(SINCE), information=dated(injected - timedelta(days=911)))
    )
    check(shifted)
    assert "the date of injection does not fit that of the scan; its time is used" in shifted.notes
    days_ago = START - timedelta(hours=70)  # zirconium is scanned days later
    old = {"half_life": 282276.0, "nuclide": "89Zr"}
    values = lambda _index: activity(70 * 3600, old["half_life"])[0]  # noqa: E731
    check(suv(pet(tmp_path / "c", values, information=dated(days_ago), **old)))
    with pytest.raises(VolumeError, match=r"without its date .*half-life 78 hours"):
        suv(pet(tmp_path / "d", values, **old))


@pytest.mark.parametrize("stated", ["frame", "private"])
def test_a_series_that_was_computed_later_says_in_its_slices_when_the_scan_began(tmp_path, stated):
    def later(file, index):
        file.SeriesTime = clock(START + timedelta(hours=3))
        if stated == "private":
            block = file.private_block(0x0009, "GEMS_PETD_01", create=True)
            block.add_new(0x0D, "DT", START.strftime("%Y%m%d%H%M%S.00"))
        elif stated == "frame":
            file.FrameReferenceTime = 1000 * FRAME_S * index

    check(suv(pet(tmp_path / "a", corrected_to(SINCE), change=later)))
    stated = ""
    with pytest.raises(VolumeError, match="does not say when the scan began"):
        suv(pet(tmp_path / "b", corrected_to(SINCE), change=later))


def test_units_of_the_scanner(tmp_path):
    def suv_of(kind):
        def change(file, _index):
            file.Units, file.SUVType = "GML", kind
            del file.RadiopharmaceuticalInformationSequence, file.PatientWeight

        return change

    check(suv(pet(tmp_path / "suv", lambda _index: UPTAKE[0], change=suv_of("BW"))))
    with pytest.raises(VolumeError, match="SUV by LBM and not by body weight"):
        suv(pet(tmp_path / "lean", lambda _index: UPTAKE[0], change=suv_of("LBM")))

    def counts(**private):
        def change(file, _index):
            file.Units = "CNTS"
            block = file.private_block(0x7053, "Philips PET Private Group", create=True)
            for name, value in private.items():
                block.add_new(int(name[1:], 16), "DS", f"{value:.8g}")

        return change

    scanner = counts(x00=0.125)
    check(suv(pet(tmp_path / "a", lambda _index: UPTAKE[0] / 0.125, change=scanner)))
    in_bq = counts(x09=2.5)
    check(suv(pet(tmp_path / "b", lambda _index: activity(SINCE)[0] / 2.5, change=in_bq)))
    with pytest.raises(VolumeError, match="holds counts"):
        suv(pet(tmp_path / "c", corrected_to(SINCE), change=counts()))


REFUSED = {
    "no weight": (lambda f: f.__delattr__("PatientWeight"), "states no weight"),
    "weight 0": (lambda f: setattr(f, "PatientWeight", 0), "states no weight"),
    "weight in g": (lambda f: setattr(f, "PatientWeight", 68000), "of 68000 kg"),
    "no units": (lambda f: f.__delattr__("Units"), "units that it does not state"),
    "by surface": (lambda f: setattr(f, "Units", "CM2ML"), "has values in CM2ML"),
    "no correction": (lambda f: f.__delattr__("DecayCorrection"), "to which time decay"),
    "not attenuated": (lambda f: setattr(f, "CorrectedImage", ["DECY"]), "for attenuation"),
    "contradiction": (lambda f: setattr(f, "CorrectedImage", ["ATTN"]), "contradicts itself"),
    "no injection": (
        lambda f: f.__delattr__("RadiopharmaceuticalInformationSequence"), "states no injection",
    ),
    "two injections": (
        lambda f: setattr(f, "RadiopharmaceuticalInformationSequence",
                          Sequence(2 * list(f.RadiopharmaceuticalInformationSequence))),
        "states 2 injections",
    ),
    "no time": (lambda f: f.__delattr__("AcquisitionTime"), "states no time of acquisition"),
}  # fmt: skip
INSIDE = {
    "no dose": (lambda i: i.__delattr__("RadionuclideTotalDose"), "states no injected dose"),
    "dose in MBq": (lambda i: setattr(i, "RadionuclideTotalDose", 312), "a dose of 312 Bq"),
    "no time": (lambda i: i.__delattr__("RadiopharmaceuticalStartTime"), "no time of injection"),
    "after the scan": (
        lambda i: setattr(i, "RadiopharmaceuticalStartTime", "115900"), "injected at 11:59",
    ),
    "in minutes": (lambda i: setattr(i, "RadionuclideHalfLife", 109.8), "half-life of 109.8 s"),
    "no half-life": (
        lambda i: (i.__delattr__("RadionuclideHalfLife"), i.__delattr__("RadionuclideCodeSequence")),
        "states no half-life",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trap", [*REFUSED, *(f"inside: {name}" for name in INSIDE)])
def test_files_that_do_not_say_enough_are_refused_and_stay_readable(tmp_path, trap):
    spoil, words = REFUSED.get(trap) or INSIDE[trap.removeprefix("inside: ")]
    if trap in REFUSED:
        folder = pet(tmp_path / "pet", corrected_to(SINCE), change=lambda file, _index: spoil(file))
    else:
        folder = pet(tmp_path / "pet", corrected_to(SINCE), information=spoil)
    with pytest.raises(VolumeError) as caught:
        suv(folder)
    message = str(caught.value)
    assert words in message
    assert message.endswith("or leave out suv, which takes their values as they are.")
    np.testing.assert_allclose(read_volume(folder).values[0], activity(SINCE)[0], rtol=1e-3)


def test_a_nuclide_gives_the_half_life_that_a_file_does_not_state(tmp_path):
    values = lambda _index: activity(SINCE, GA68)[0]  # noqa: E731
    forget = lambda item: item.__delattr__("RadionuclideHalfLife")  # noqa: E731
    check(suv(pet(tmp_path / "pet", values, nuclide="^68^Gallium", information=forget)))


def test_units_that_change_from_slice_to_slice(tmp_path):
    """Refused before SUV is asked for."""

    def change(file, index):
        file.Units = "BQML" if index else "CNTS"

    with pytest.raises(VolumeError):
        suv(pet(tmp_path / "pet", corrected_to(SINCE), change=change))


def test_a_recipe_asks_for_suv_of_pet_alone(tmp_path):
    folder = pet(tmp_path / "pet", corrected_to(SINCE))
    files = {"PET": SeriesFiles(path=folder)}
    job = VolumeJob(name="p", case="p", modalities=files)
    recipe = VolumeRecipe(channels=("PET",), slices="all", show="whole", pixel_mm=1.0, suv=True)
    volumes, _ = job.read(recipe)
    check(volumes["PET"])
    plain = VolumeRecipe(channels=("PET",), slices="all", show="whole", pixel_mm=1.0)
    assert "suv" not in plain.to_json()  # as recipes of earlier versions
    assert recipe.to_json()["suv"] is True
    volumes, _ = job.read(plain)
    assert volumes["PET"].values.max() > 100
