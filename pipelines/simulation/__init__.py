"""A service with users whose tastes change, to watch the loop at work."""
