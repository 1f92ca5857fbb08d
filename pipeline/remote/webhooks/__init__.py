"""Providers' webhooks: verify the signature of a call, and have the job polled."""
