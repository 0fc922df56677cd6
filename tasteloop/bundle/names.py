"""What the files of a bundle are called."""

from __future__ import annotations

CARD_FILE = "card.json"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.json"
README_FILE = "README.md"
ITEMS_FILE = "items.parquet"
RECOMMENDER_FILE = "recommender.safetensors"
HABITS_FILE = "habits.safetensors"
LANGUAGE_FILE = "language.safetensors"
BASE_MODEL = "encoder"  # the encoder as it was published, without heads
MODELS_DIRECTORY = "models"  # a directory for each encoder
