"""From noise to latents: the schedule, guidance and the denoise loop. Knows tensors, no network."""
