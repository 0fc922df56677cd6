"""The `tasteloop` command."""
