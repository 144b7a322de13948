"""The bucket of the backups, as the rest of the software sees it."""
