"""Latent data: sources, encoding, stores and batches."""
