"""Hooks of mkdocs: the version in each page's footer, and the pictures that `make bench` drew, as results/NAME.svg."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import raccoon_fast

_RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def on_config(config: MkDocsConfig) -> None:
    """Called by mkdocs when it has read its configuration."""
    config.copyright = f"raccoon_fast {raccoon_fast.client_info().version}"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Called by mkdocs once it has found the pages."""
    for picture in _RESULTS.glob("*.svg"):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
