"""Weight files to modules that run on a host: experts, text encoder, VAE, and their inputs."""
