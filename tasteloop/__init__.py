"""Tasteloop learns what users want from what they do: behaviour as language, read by BERT."""

from tasteloop.opt_out import opt_out

__version__ = "0.1.0"

opt_out()  # before any other import of ours
