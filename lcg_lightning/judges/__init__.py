"""Networks that read images: attributes and identity."""
