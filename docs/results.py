"""A hook of mkdocs: the pictures that `make bench` drew, beside the pages as results/NAME.svg."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Called by mkdocs once it has found the pages."""
    for picture in _RESULTS.glob("*.svg"):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
