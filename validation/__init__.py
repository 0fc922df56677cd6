"""What data and models must satisfy, and pages that say whether they do."""
