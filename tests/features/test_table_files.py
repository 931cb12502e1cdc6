"""Tables as CSV hold any name and appear whole."""

import csv

from features.files.tables import write_table


def test_a_table_holds_names_in_any_script(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    write_table(path, ["case", "Größe, µm"], [["Łódź", 1], ["肉腫", 2.5]])
    assert path.read_bytes() == 'case,"Größe, µm"\r\nŁódź,1\r\n肉腫,2.5\r\n'.encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["table.csv"]


def test_a_name_that_is_not_utf8_is_written_with_its_bytes_escaped(tmp_path):
    write_table(tmp_path / "t.csv", ["slide"], [["a\udcff"]])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["slide"], ["a\\udcff"]]
