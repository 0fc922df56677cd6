"""Tasteloop learns what users want from what they do: behaviour as language, read by BERT."""

__version__ = "0.1.0"
