"""Backups of a site in its OSS bucket: made, believed only when complete, and restored."""
