"""How a request becomes an answer: parsing, batching, and the version that is live."""
