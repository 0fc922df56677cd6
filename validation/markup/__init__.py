"""What every page is made of: templates and their environment, style, plots, and the last check."""
