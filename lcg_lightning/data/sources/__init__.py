"""Data sets that become latent stores."""
