"""The quality benchmark: protocols as data, methods as plug-ins, one table out
(docs/benchmarks.md).
"""
