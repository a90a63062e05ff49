"""Fixtures for engines. Engines are large and needed only here; `make test-engines` installs them in a venv."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raccoon_fast.collector import Collector

if importlib.util.find_spec("pyarrow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    collect_ignore_glob = [
        f"test_{engine}*.py"
        for engine, package in (("spark", "pyspark"), ("engines", "pyspark"), ("ray", "ray"))
        if importlib.util.find_spec(package) is None
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # An engine takes its time to start; and what it warns of is not ours to mend.
            item.add_marker(pytest.mark.timeout(240))
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def driver_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = tmp_path_factory.mktemp("spark") / "driver.log"
    log.touch()
    return log


@contextlib.contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Where the JVM that is started meanwhile, and all its children, write for good."""
    before = os.dup(2)
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@pytest.fixture(scope="session")
def new_spark(tmp_path_factory: pytest.TempPathFactory, driver_log: Path) -> Iterator[Callable[..., Any]]:
    """Starts a session, and ends the one before: new_spark("local[2]", **{"spark.some.option": "value"})."""
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17 or newer")
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable, PYSPARK_DRIVER_PYTHON=sys.executable)
    from pyspark.sql import SparkSession

    from raccoon_fast.integrations.spark import RaccoonDataSource

    sessions: list[tuple[tuple[str, dict[str, str]], Any]] = []

    def new(master: str, **options: str) -> Any:
        if sessions and sessions[-1][0] == (master, options):
            return sessions[-1][1]
        if sessions:
            sessions.pop()[1].stop()
        builder = SparkSession.builder.master(master).appName("raccoon_fast tests")
        settings = {
            "spark.driver.memory": "1g",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.files.maxPartitionBytes": "10m",
            "spark.local.dir": str(tmp_path_factory.getbasetemp()),
            "spark.sql.warehouse.dir": str(tmp_path_factory.getbasetemp() / "warehouse"),
            **options,
        }
        for name, value in settings.items():
            builder = builder.config(name, value)
        with stderr_to(driver_log):
            session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        session.dataSource.register(RaccoonDataSource)
        sessions.append(((master, options), session))
        return session

    yield new
    for _, session in sessions:
        session.stop()


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of this machine alone, with two CPUs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    quiet = {"include_dashboard": False, "logging_level": "error", "log_to_driver": False}
    ray.init(num_cpus=2, object_store_memory=256 << 20, **quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    yield ray
    ray.shutdown()
