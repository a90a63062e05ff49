"""Recognizes files that are not JSON Lines, and says how to convert them."""

from __future__ import annotations

import re

__all__ = ["array_hint", "format_hint"]

_ARRAY = "a JSON array: convert it to lines, for example with `jq -c '.[]' FILE`"
_MAGIC = {
    b"PAR1": "Parquet: pass it as a file whose name ends in .parquet",
    b"ARROW1": "Arrow: pass it as a file whose name ends in .arrow",
    b"Obj\x01": "Avro: convert it to JSON Lines, for example with `fastavro FILE`",
    b"ORC": "ORC: convert it to JSON Lines, for example with pandas' read_orc and to_json(lines=True)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, `zstd -dc FILE | raccoon-fast send - …`",
    b"BZh": "compressed with bzip2: unpack it, `bzip2 -dc FILE | raccoon-fast send - …`",
    b"\xfd7zXZ": "compressed with xz: unpack it, `xz -dc FILE | raccoon-fast send - …`",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack or export it first",
    b"\xff\xfe": "UTF-16: convert it to UTF-8, `iconv -f UTF-16 -t UTF-8 FILE`",
    b"\xfe\xff": "UTF-16: convert it to UTF-8, `iconv -f UTF-16 -t UTF-8 FILE`",
    b"\xef\xbb\xbf": "JSON after a byte order mark: remove the mark, `sed '1s/^\\xef\\xbb\\xbf//' FILE`",
}
# At least two names, as in the header of a table.
_HEADER = re.compile(rb"""["']?[\w .\-]+["']?(?:[,;\t]["']?[\w .\-]+["']?)+""")


def format_hint(first: bytes) -> str:
    """Says what the first line of a file looks like; "" if unknown.

    Args:
        first: A line that is not JSON.
    """
    for magic, hint in _MAGIC.items():
        if first.startswith(magic):
            return hint
    if first.startswith(b"["):
        return _ARRAY
    if first.startswith(b"{"):
        return "JSON over several lines: write each value on one line, for example with `jq -c . FILE`"
    if _HEADER.fullmatch(first.strip()):
        return "CSV: pass it as a file whose name ends in .csv"
    return ""


def array_hint(first: bytes) -> str:
    """Says if a first line that is JSON looks like a whole file instead of an event; "" if it does not.

    Args:
        first: A line that is JSON.
    """
    return _ARRAY if re.match(rb"\[\s*\{", first) else ""
