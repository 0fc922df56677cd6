"""The journal of answers and of what users did with them."""
