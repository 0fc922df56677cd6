"""What is measured against peers: each runnable alone, from a checkout."""
