"""The miniature Harbor: an offline installer of our own with the contract and the habits of the real one."""

from .installer import InstallerFile, build_installer

__all__ = ["InstallerFile", "build_installer"]
