"""Graphs, their settings, and the `tasteloop` command."""
