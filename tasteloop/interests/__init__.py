"""Interests that no catalogue names: items that people take together and that words tell apart."""
