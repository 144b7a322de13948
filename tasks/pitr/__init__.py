"""WAL and base backups in the bucket, by pgBackRest, and the way back to a point in time."""
