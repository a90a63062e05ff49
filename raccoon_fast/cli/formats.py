"""What a file that is no JSON Lines looks like, and how lines are made of it."""

from __future__ import annotations

import re

__all__ = ["array_hint", "format_hint"]

_ARRAY = "a JSON array: make lines of it, for example with `jq -c '.[]' FILE`"
_MAGIC = {
    b"PAR1": "Parquet: give it as a file whose name ends in .parquet",
    b"ARROW1": "Arrow: give it as a file whose name ends in .arrow",
    b"Obj\x01": "Avro: make JSON Lines of it, for example with `fastavro FILE`",
    b"ORC": "ORC: make JSON Lines of it, for example with pandas' read_orc and to_json(lines=True)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, `zstd -dc FILE | raccoon-fast send - …`",
    b"BZh": "compressed with bzip2: unpack it, `bzip2 -dc FILE | raccoon-fast send - …`",
    b"\xfd7zXZ": "compressed with xz: unpack it, `xz -dc FILE | raccoon-fast send - …`",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack or export it first",
    b"\xff\xfe": "UTF-16: make UTF-8 of it, `iconv -f UTF-16 -t UTF-8 FILE`",
    b"\xfe\xff": "UTF-16: make UTF-8 of it, `iconv -f UTF-16 -t UTF-8 FILE`",
    b"\xef\xbb\xbf": "JSON behind a byte order mark: take it off, `sed '1s/^\\xef\\xbb\\xbf//' FILE`",
}
# At least two names, as the first line of a table has them.
_HEADER = re.compile(rb"""["']?[\w .\-]+["']?(?:[,;\t]["']?[\w .\-]+["']?)+""")


def format_hint(first: bytes) -> str:
    """What the first line of a file looks like; "" where it is not known.

    Args:
        first: A line that is not JSON.
    """
    for magic, hint in _MAGIC.items():
        if first.startswith(magic):
            return hint
    if first.startswith(b"["):
        return _ARRAY
    if first.startswith(b"{"):
        return "JSON over several lines: make one line of each value, for example with `jq -c . FILE`"
    if _HEADER.fullmatch(first.strip()):
        return "CSV: give it as a file whose name ends in .csv"
    return ""


def array_hint(first: bytes) -> str:
    """What a first line that is JSON may be by mistake: a whole file; "" where it is an event.

    Args:
        first: A line that is JSON.
    """
    return _ARRAY if re.match(rb"\[\s*\{", first) else ""
