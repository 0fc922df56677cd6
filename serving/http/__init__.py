"""HTTP and gRPC: connections, routes, protocols, and who may call."""
