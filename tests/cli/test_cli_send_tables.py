"""`raccoon-fast send` with tables (Parquet, Arrow, Feather, CSV), the real command against a real collector."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

pa = pytest.importorskip("pyarrow")

from google.protobuf import descriptor_pb2, timestamp_pb2  # noqa: E402
from pyarrow import csv, feather, parquet  # noqa: E402

from raccoon_fast.collector import Collector  # noqa: E402

ROWS = 2500
TABLE = pa.table({"n": range(ROWS), "kind": [f"k{number % 3}" for number in range(ROWS)], "text": ["é"] * ROWS})
OBJECTS = [{"n": number, "kind": f"k{number % 3}", "text": "é"} for number in range(ROWS)]


def write_stream(table, path):
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=999)


def write_file(table, path):
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=999)


def write_gzip(table, path):
    plain = path.with_suffix("")
    csv.write_csv(table, plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def write_tabs(table, path):
    csv.write_csv(table, path, csv.WriteOptions(delimiter="\t"))


WRITERS = {
    "t.parquet": lambda table, path: parquet.write_table(table, path, row_group_size=700),
    "t.arrow": write_file,
    "stream.arrow": write_stream,
    "t.feather": lambda table, path: feather.write_feather(table, path, chunksize=900),
    "t.csv": csv.write_csv,
    "t.CSV": csv.write_csv,
    "t.csv.gz": write_gzip,
    "t.tsv": write_tabs,
}


def objects(collector):
    return sorted((json.loads(event.data) for event in collector.events), key=lambda it: it["n"])


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_arrives_as_an_object(command, collector, tmp_path, name):
    WRITERS[name](TABLE, tmp_path / name)
    run = command("send", tmp_path / name, "--url", collector.ws_url, "--type", "page", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    assert objects(collector) == OBJECTS
    assert {event.type for event in collector.events} == {"page"}
    summary = json.loads(run.stdout)
    assert (summary["events"], summary["acknowledged"], summary["requests"]) == (ROWS, ROWS, 3)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv"])
def test_columns_and_types(command, collector, tmp_path, name):
    WRITERS[name](TABLE, tmp_path / name)
    options = ["--type-column", "kind", "--columns", "text, n"]
    run = command("send", tmp_path / name, "--url", collector.url, *options)
    assert (run.returncode, run.stderr) == (0, "")
    assert min(event.data for event in collector.events) == '{"text":"é","n":0}'.encode()
    assert all(event.type == f"k{json.loads(event.data)['n'] % 3}" for event in collector.events)


@pytest.mark.slow
def test_messages_of_columns(command, collector, tmp_path):
    file = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"seconds": [1, 2], "nanos": [0, 5]}), file)
    described = tmp_path / "t.desc"
    files = descriptor_pb2.FileDescriptorSet()
    files.file.add().ParseFromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    described.write_bytes(files.SerializeToString())
    options = ["--url", collector.url, "--type", "tick", "--descriptors", described]
    run = command("send", file, *options, "--message", "google.protobuf.Timestamp")
    assert (run.returncode, run.stderr) == (0, "")
    expected = [timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos) for seconds, nanos in ((1, 0), (2, 5))]
    assert [event.data for event in collector.events] == [message.SerializeToString() for message in expected]
    for more, message in (
        (["--message", "t.None"], "t.desc has no message t.None"),
        (["--message", "google.protobuf.Timestamp", "--columns", "x"], "column 'x' is not there"),
        (["--message", "google.protobuf.Timestamp", "--failed", tmp_path / "f"], "--failed keeps lines"),
        ([], "--message and --descriptors belong together"),
        (["--message", "t.None", "--descriptors", file], "has no descriptors"),
    ):
        run = command("send", file, *options, *more)
        assert run.returncode == 2
        assert message in run.stderr


def test_several_files_and_patterns(command, collector, tmp_path):
    for number in range(3):
        csv.write_csv(TABLE.slice(number * 100, 100), tmp_path / f"day-{number}.csv")
    parquet.write_table(TABLE.slice(300, 100), tmp_path / "rest.parquet")
    lines = tmp_path / "more.jsonl"
    lines.write_bytes(b"".join(json.dumps(it).encode() + b"\n" for it in OBJECTS[400:500]))
    names = [tmp_path / "day-*.csv", tmp_path / "rest.parquet", lines]
    run = command("send", *names, "--url", collector.ws_url, "--type", "page", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    assert objects(collector) == OBJECTS[:500]
    assert json.loads(run.stdout)["events"] == 500
    dry = command("send", *names, "--type", "page", "--dry-run", "--json")
    assert json.loads(dry.stdout)["events"] == 500


@pytest.mark.parametrize("name", ["t.parquet", "stream.arrow", "t.csv", "t.csv.gz"])
def test_the_last_of_several_files_is_closed_while_requests_are_in_flight(command, tmp_path, name):
    csv.write_csv(TABLE.slice(0, 1), tmp_path / "first.csv")
    WRITERS[name](TABLE.slice(1), tmp_path / name)
    with Collector(acks="sync", publish_delay=0.3) as collector:
        run = command("send", "first.csv", name, "--url", collector.url, "--type", "page")
        assert (run.returncode, run.stderr) == (0, "")
        assert objects(collector) == OBJECTS


@pytest.mark.slow
def test_a_row_that_is_not_an_event(command, collector, tmp_path):
    days = pa.array([0, 1, 5_000_000, 3, 6_000_000], pa.date32())
    file = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"n": range(5), "day": days}), file)
    run = command("send", file, "--url", collector.url, "--type", "page")
    assert run.returncode == 2
    assert f"{file}:3: column 'day' has a date" in run.stderr
    assert "skip such rows with --skip-bad" in run.stderr
    assert [it["n"] for it in objects(collector)] == [0, 1]
    collector.clear()
    run = command("send", file, "--url", collector.url, "--type", "page", "--skip-bad", "--json")
    assert run.returncode == 0
    assert json.loads(run.stdout)["bad_lines"] == 2
    assert [it["n"] for it in objects(collector)] == [0, 1, 3]
    dry = command("send", file, "--type", "page", "--dry-run")
    assert dry.returncode == 2
    assert f"{file}:5: column 'day'" in dry.stderr


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "stream.arrow", "t.csv"])
def test_a_table_without_rows(command, collector, tmp_path, name):
    WRITERS[name](TABLE.slice(0, 0), tmp_path / name)
    csv.write_csv(TABLE, tmp_path / "rows.csv")
    run = command("send", name, "rows.csv", "--url", collector.url, "--type", "page")
    assert (run.returncode, run.stderr) == (0, "")
    assert len(objects(collector)) == ROWS


# Two cells of one column of a CSV file, and the values to send.
CELLS = [
    (["12345678901234567890", "7"], ["12345678901234567890", "7"]),  # more than 64 bits
    (["-9223372036854775809", "7"], ["-9223372036854775809", "7"]),
    (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),  # more than a double's 53 bits
    (["1" * 5000, "7"], ["1" * 5000, "7"]),
    (["00501", "94105"], ["00501", "94105"]),
    (["7", '"00501"'], ["7", "00501"]),
    (["007", ""], ["007", ""]),
    (["-01", "1.5"], ["-01", "1.5"]),
    (["+493012345", "1"], ["+493012345", "1"]),
    (["9223372036854775807", "-9223372036854775808"], [9223372036854775807, -9223372036854775808]),
    (["10000000000000000000000", "0.5"], [1e22, 0.5]),
    (["0", "-0"], [0, 0]),
    (["0.50", "00.5"], [0.5, 0.5]),
    (["1e5", ""], [1e5, None]),
    (["x", "007"], ["x", "007"]),
]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv"])
def test_numbers_keep_their_digits(command, collector, tmp_path, name):
    names = [f"c{number}" for number in range(len(CELLS))]
    rows = [names, *zip(*(cells for cells, _ in CELLS), strict=True)]
    text = "".join(("\t" if name == "t.tsv" else ",").join(row) + "\n" for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    run = command("send", name, "--url", collector.url, "--type", "page")
    assert (run.returncode, run.stderr) == (0, "")
    expected = [dict(zip(names, row, strict=True)) for row in zip(*(values for _, values in CELLS), strict=True)]
    assert [json.loads(event.data) for event in collector.events] == expected


def test_from_a_row_on(command, collector, tmp_path):
    write_file(TABLE, tmp_path / "t.arrow")
    options = ["--type", "page", "--from-line", "2001"]
    run = command("send", tmp_path / "t.arrow", "--url", collector.url, *options)
    assert (run.returncode, run.stderr) == (0, "")
    assert [it["n"] for it in objects(collector)] == [*range(2000, 2500)]
    options[-1] = "2502"
    run = command("send", tmp_path / "t.arrow", "--url", collector.url, *options)
    assert run.returncode == 2
    assert "ends at row 2500: there is no row 2502" in run.stderr


def test_failed_rows_are_kept_as_lines(command, tmp_path):
    csv.write_csv(TABLE.slice(0, 3), tmp_path / "t.csv")
    failed = tmp_path / "failed.jsonl"
    options = ["--type", "page", "--failed", failed, "--max-attempts", "1"]
    run = command("send", tmp_path / "t.csv", "--url", "http://127.0.0.1:9", *options)
    assert run.returncode == 1
    assert [json.loads(line) for line in failed.read_bytes().splitlines()] == OBJECTS[:3]
    run = command(
        "send", tmp_path / "t.csv", "--url", "http://127.0.0.1:9", "--type", "t", "--failed", tmp_path / "t.csv"
    )
    assert run.returncode == 2
    assert "is the input file" in run.stderr


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["t.csv"], ["--type-field", "kind"], "is a table: name the column with the events' types by --type-column"),
        (["t.jsonl"], ["--type-column", "kind"], "--type-column is for tables"),
        (["t.jsonl"], ["--type", "a", "--columns", "n"], "--columns is for tables"),
        (["t.jsonl"], ["--type", "a", "--message", "M", "--descriptors", __file__], "--message is for tables"),
        (["t.csv"], ["--type", "a", "--columns", "n,n"], "must be names separated by commas, each once"),
        (["t.csv"], ["--type", "a", "--columns", "x"], "column 'x' is not there; the columns are n, kind, text"),
        (["t.csv"], ["--type-column", "n"], "type_column 'n' must be of strings"),
        (["broken.parquet"], ["--type", "a"], "broken.parquet: "),
        (["broken.arrow"], ["--type", "a"], "broken.arrow: "),
        (["broken.csv.gz"], ["--type", "a"], "broken.csv.gz: "),
        (["torn.csv.gz"], ["--type", "a"], "torn.csv.gz: "),
        (["torn.parquet"], ["--type", "a"], "torn.parquet: "),
        (["none-*.csv"], ["--type", "a"], "no file matches"),
        (["none.csv"], ["--type", "a"], "none.csv: No such file"),
        (["folder.csv"], ["--type", "a"], "folder.csv: Is a directory"),
        (["folder.arrow"], ["--type", "a"], "folder.arrow: Is a directory"),
        (["t.csv", "t.jsonl"], ["--type", "a", "--from-line", "2"], "--from-line needs a single file"),
    ],
)
def test_wrong_files_and_options(command, tmp_path, names, options, message):
    csv.write_csv(TABLE.slice(0, 3), tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_bytes(b"{}\n")
    for name in ("broken.parquet", "broken.arrow", "broken.csv.gz"):
        (tmp_path / name).write_bytes(b"no such thing, and longer than a footer")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"n\n1\n")[:-8])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 no metadata" + (4).to_bytes(4, "little") + b"PAR1")
    for name in ("folder.csv", "folder.arrow"):
        (tmp_path / name).mkdir()
    run = command("send", *(tmp_path / name for name in names), "--url", "http://127.0.0.1:9", *options)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_stdin_excludes_other_files(command, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b"{}\n")
    run = command("send", "-", tmp_path / "t.jsonl", "--url", "http://127.0.0.1:9", "--type", "a", stdin=b"")
    assert run.returncode == 2
    assert "- is stdin" in run.stderr


def test_a_broken_end_is_reported_with_its_row(command, collector, tmp_path):
    file = tmp_path / "t.csv"
    csv.write_csv(TABLE, file)
    with file.open("ab") as out:
        out.write(b"1,2,3,4,5\n")
    run = command("send", file, "--url", collector.url, "--type", "page")
    assert run.returncode == 2
    assert f"{file}" in run.stderr
    assert "Expected 3 columns, got 5" in run.stderr


@pytest.mark.parametrize("name", ["broken.csv.gz", "broken.parquet", "folder.csv"])
def test_what_was_read_before_a_broken_file_is_counted(command, collector, tmp_path, name):
    csv.write_csv(TABLE, tmp_path / "t.csv")
    (tmp_path / name).write_bytes(b"PAR1 no metadata" + (4).to_bytes(4, "little") + b"PAR1")
    options = ["t.csv", name, "--type", "page", "--json"]
    if name == "folder.csv":
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    for more in (["--dry-run"], ["--url", collector.url]):
        run = command("send", *options, *more)
        assert run.returncode == 2
        assert run.stderr.startswith(f"raccoon-fast send: {name}: ")
        assert run.stderr.count("\n") == 1
        assert "\\n" not in run.stderr
        assert json.loads(run.stdout)["events"] == ROWS
    assert json.loads(run.stdout)["acknowledged"] == ROWS


def test_rows_before_a_torn_end_are_sent(command, collector, tmp_path):
    file = tmp_path / "torn.arrow"
    write_stream(TABLE, file)
    file.write_bytes(file.read_bytes()[:-200])
    run = command("send", "torn.arrow", "--url", collector.url, "--type", "page", "--json")
    assert run.returncode == 2
    assert run.stderr.startswith("raccoon-fast send: torn.arrow: cannot be read past row 1998: ")
    assert objects(collector) == OBJECTS[:1998]
    summary = json.loads(run.stdout)
    assert (summary["events"], summary["acknowledged"]) == (1998, 1998)


@pytest.mark.parametrize("name", WRITERS)
def test_arrow_opens_the_file_itself(tmp_path, name):
    """A thread of Arrow that uses a Python file while the interpreter exits, after an error say, aborts the process."""
    path = tmp_path / name
    WRITERS[name](TABLE, path)
    program = """
import sys
from raccoon_fast.cli import main
opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
code = main(["send", sys.argv[1], "--type", "page", "--dry-run"])
print(code, sys.argv[1] in map(str, opened))
"""
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "0 False", run.stdout + run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    program = (
        "import sys\n"
        "from raccoon_fast.cli import main\n"
        "code = main(['send', sys.argv[1], '--type', 'a', '--dry-run'])\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
        "sys.exit(code)\n"
    )
    used = []
    for rows in (50_000, 500_000):
        file = tmp_path / f"{rows}.parquet"
        parquet.write_table(pa.table({"n": range(rows), "s": [f"row {n} " * 9 for n in range(rows)]}), file)
        run = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
        used.append(int(run.stdout.splitlines()[-1]))
    assert used[1] < used[0] + 60_000  # KB; the second file's rows alone are 40 MB, and more as Python's objects
