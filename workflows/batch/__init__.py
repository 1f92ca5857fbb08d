"""The parts of run_batch.py."""
