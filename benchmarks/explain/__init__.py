"""Sentences against their numbers, what they cover, and what telling costs (docs/explain.md)."""
