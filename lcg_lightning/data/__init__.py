"""Latents: rendering, encoding, storing and serving them."""
