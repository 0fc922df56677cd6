"""Which version answers: registry, promotion, rehearsal, rollout, and following them."""
