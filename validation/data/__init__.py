"""Whether data may be trained on."""
