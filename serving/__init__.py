"""Which model is live and how it answers: registry, rollout, predictor, server, client."""
