"""Readers record the place of each row, with the same numbers as rejects."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from curator_core.model.codec import decode_task, encode_task
from curator_core.model.places import places_of
from curator_core.model.task import FileGroupTask
from curator_text import WordCountFilter
from curator_text.readers import CsvRead, JsonlRead, ParquetRead, TextFilesRead

LINES = [
    '{"id": "a", "text": "one"}',
    "",
    '{"id": "b", "text": "one two"}',
    "no json",
    "   ",
    '{"id": "c", "text": "one two three"}',
    '{"id": "d", "text": "one two"}',
]


def placed(stage, path, ranges=None):
    task = FileGroupTask(data=[str(path)], ranges=ranges)
    found = {}
    for batch in stage.process(task):
        places = places_of(batch)
        for row, values in enumerate(batch.to_pyarrow().to_pylist()):
            found[values.get("id") or values["text"]] = places.at(row)
    return found


def test_the_place_of_a_json_line_is_its_line_in_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    found = placed(JsonlRead(), path)
    assert found == {key: (str(path), f"line {line}") for key, line in (("a", 1), ("b", 3), ("c", 6), ("d", 7))}
    small = tmp_path / "b.jsonl.gz"
    small.write_bytes(gzip.compress(("\n".join(LINES[2:3] * 9) + "\n" + LINES[0] + "\n").encode()))
    assert placed(JsonlRead(batch_bytes=64), small)["a"] == (str(small), "line 10")


def test_in_a_range_of_a_json_lines_file_the_place_is_a_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    data = path.read_bytes()
    found = placed(JsonlRead(), path, [(5, len(data))])
    assert set(found) == {"b", "c", "d"}
    for key, (_, place) in found.items():
        assert json.loads(data[int(place.removeprefix("byte ")) :].splitlines()[0])["id"] == key


def test_the_range_of_a_line_holds_only_that_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    stage = JsonlRead()
    for key, line in (("a", 1), ("b", 3), ("c", 6), ("d", 7)):
        assert set(placed(stage, path, [stage.range_of(str(path), "line", line)])) == {key}
    assert stage.range_of(str(path), "line", 8) is None
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert stage.range_of(str(packed), "line", 1) is None


def test_places_are_kept_by_filters_and_replaced_columns(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    (batch,) = JsonlRead().process(FileGroupTask(data=[str(path)]))
    kept = WordCountFilter(min_words=2, max_words=2).process(batch)
    changed = kept.append_column("text", pa.array(["x"] * kept.num_rows)).append_column("n", pa.array([1, 2]))
    kept = changed.filter(pa.array([False, True]))
    assert kept.to_pyarrow()["id"].to_pylist() == ["d"]
    assert places_of(kept).at(0) == (str(path), "line 7")
    assert places_of(kept.with_data(pa.table({"x": [1]}))) is None


def test_places_are_sent_to_other_processes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    (batch,) = JsonlRead().process(FileGroupTask(data=[str(path)]))
    for task, lines in ((batch, [1, 3, 6, 7]), (batch.filter(pa.array([False, True, False, True])), [3, 7])):
        there = decode_task(encode_task(task))
        assert [places_of(there).at(row) for row in range(len(lines))] == [(str(path), f"line {n}") for n in lines]
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
    (batch,) = TextFilesRead().process(FileGroupTask(data=[str(tmp_path / "one.txt"), str(tmp_path / "two.txt")]))
    there = decode_task(encode_task(batch.filter(pa.array([False, True]))))
    assert places_of(there).at(0) == (str(tmp_path / "two.txt"), "")
    clean = tmp_path / "clean.jsonl"
    clean.write_text("\n".join(LINES[2:3] * 3))
    (batch,) = JsonlRead().process(FileGroupTask(data=[str(clean)]))
    assert len(encode_task(batch)) - len(encode_task(batch.with_data(batch.data))) < 200


def test_the_place_of_a_row_of_csv_is_its_number_below_the_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text\na,one\nb\n\nc,"two\nlines"\nd,x\n')
    found = placed(CsvRead(), path)
    assert found == {key: (str(path), f"row {row}") for key, row in (("a", 1), ("c", 3), ("d", 4))}


def test_the_place_of_a_row_of_parquet_is_its_number_in_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"id": [f"r{n}" for n in range(1, 11)], "text": ["x"] * 10})
    pq.write_table(table, path, row_group_size=4)
    stage = ParquetRead()
    assert placed(stage, path) == {f"r{n}": (str(path), f"row {n}") for n in range(1, 11)}
    assert set(placed(stage, path, [stage.range_of(str(path), "row", 5)])) == {"r5", "r6", "r7", "r8"}
    assert stage.range_of(str(path), "row", 11) is None


def test_the_place_of_a_text_file_is_the_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
    (batch,) = TextFilesRead().process(FileGroupTask(data=[str(tmp_path / "one.txt"), str(tmp_path / "two.txt")]))
    assert places_of(batch).at(1) == (str(tmp_path / "two.txt"), "")
