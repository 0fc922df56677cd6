"""Pages that people read: reports and the site."""
