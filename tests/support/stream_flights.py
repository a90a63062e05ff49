"""A Spark driver that streams files of flights to a server until all are sent.

    python stream_flights.py URL FILES CHECKPOINT

Tests run it, and kill it.
"""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

from raccoon_fast.integrations.spark import RaccoonDataSource

SCHEMA = "number long, carrier string, flight long, origin string, dest string, tailnum string, time_hour string"


def main(url: str, files: str, checkpoint: str) -> None:
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "512m")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.files.maxPartitionBytes", "4m")
        .getOrCreate()
    )
    spark.dataSource.register(RaccoonDataSource)
    rows = spark.readStream.schema(SCHEMA).option("maxFilesPerTrigger", 1).json(files)
    query = (
        rows.writeStream.format("raccoon")
        .options(url=url, event_type="flight", max_events_per_second="60000", parallelism="2")
        .option("checkpointLocation", checkpoint)
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


if __name__ == "__main__":
    main(*sys.argv[1:])
