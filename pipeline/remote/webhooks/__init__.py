"""Providers' callbacks: their signatures, their keys, and what they lead to."""
