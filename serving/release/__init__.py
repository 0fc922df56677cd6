"""Which version answers: registry, rehearsal, canary, and the server that follows them."""
