"""`python -m benchmarks.explain`."""

from benchmarks.explain.run import main

main()
