"""What users did, kept by pseudonym: one protocol, SQLite on one machine, Valkey on many."""
