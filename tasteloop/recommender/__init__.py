"""The recommender: the terms of a score, how they are fitted, and their sum."""
