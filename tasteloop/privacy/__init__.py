"""What keeps people out of the data: pseudonyms."""
