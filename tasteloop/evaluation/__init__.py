"""How well a bundle answers, beside baselines and the champion."""
