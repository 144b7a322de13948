"""Core's API, one module for each subject."""
