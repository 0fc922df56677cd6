"""The encoder: BERT with its heads, how it is fine-tuned, and what is calibrated or counted beside
it.
"""
