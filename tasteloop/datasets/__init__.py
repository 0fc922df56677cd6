"""Named real datasets and adapters for your own: one module a format, one catalogue of pinned
sources.
"""
