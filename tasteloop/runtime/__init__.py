"""A bundle is made, opened and asked."""
