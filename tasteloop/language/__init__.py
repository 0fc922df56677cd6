"""What people write, read as wishes: which labels, items and titles they want or refuse."""
