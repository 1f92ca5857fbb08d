"""LoRAs: from what a user names to patches on an expert."""
