"""Whether a candidate may become the champion."""
