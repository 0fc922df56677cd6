"""The loop after promotion: monitoring, retraining, retention, the site."""
