"""How ingest and snapshots grow with the data: Polars, plain pandas, Spark."""
