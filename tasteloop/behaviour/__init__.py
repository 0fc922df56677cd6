"""Behaviour: events and items, the snapshots cut from them, and the text that a model reads."""
