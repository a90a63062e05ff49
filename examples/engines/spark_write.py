"""A table and a stream of Spark's, written as events.

pip install 'raccoon_fast[spark]'
RACCOON_FAST_URL=ws://localhost:8080 python examples/engines/spark_write.py CHECKPOINT_FOLDER
"""

from __future__ import annotations

import os
import sys

from pyspark.sql import SparkSession, functions

from raccoon_fast.integrations.spark import RaccoonDataSource


def main(checkpoint: str) -> None:
    url = os.environ.get("RACCOON_FAST_URL", "ws://localhost:8080")
    spark = SparkSession.builder.appName("events").getOrCreate()
    spark.dataSource.register(RaccoonDataSource)

    orders = spark.createDataFrame(
        [("order", 1, 9.5), ("order", 2, 20.0), ("refund", 1, 9.5)], "type string, id long, amount double"
    )
    orders.write.format("raccoon").options(url=url, type_column="type").mode("append").save()

    ticks = spark.readStream.format("rate").option("rowsPerSecond", 100).load()
    ticks = ticks.select(functions.col("value").alias("tick"))
    query = (
        ticks.writeStream.format("raccoon").options(url=url, event_type="tick", checkpointLocation=checkpoint).start()
    )
    query.awaitTermination(10)
    query.stop()
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
