"""Passwords of users and robots: salted PBKDF2, one way."""

import hashlib
import hmac
import secrets

ROUNDS = 4096  # Harbor's own number; more would cost CPU on every push of the lab


def new_salt() -> str:
    """A fresh salt for one user."""
    return secrets.token_hex(16)


def digest(password: str, salt: str) -> str:
    """The stored form of a password."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), ROUNDS, 16).hex()


def matches(password: str, salt: str, stored: str) -> bool:
    """Compare in constant time."""
    return bool(salt) and hmac.compare_digest(digest(password, salt), stored)
