"""Callbacks: tell the user's own receiver, signed and with retries, that a clip is done or has failed."""
