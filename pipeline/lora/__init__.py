"""LoRAs: what a file holds, which model and expert it is for, and how it becomes patches on an expert."""
