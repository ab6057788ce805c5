"""One local Spark for the tests of this folder, as a cluster would be: ANSI mode, and a time zone that is not UTC."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(
    require_service: Callable[[str, bool, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SparkSession]:
    java = shutil.which("java") or (Path(os.environ.get("JAVA_HOME", os.devnull)) / "bin/java").is_file()
    require_service("Java", bool(java), "Spark runs on Java 17 or newer (Debian: openjdk-17-jre-headless)")
    installed = importlib.util.find_spec("pyspark") is not None
    require_service("PySpark", installed, "`make spark` installs it")
    from pyspark.sql import SparkSession

    scratch = tmp_path_factory.mktemp("spark")
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        # A short life is cheaper without the second compiler: half the processor time, measured.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.local.dir", str(scratch))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "America/St_Johns")
        .config("spark.sql.ansi.enabled", "true")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    yield session
    session.stop()
