"""Latent classifier guidance (Shi et al., CVPRW 2023, arXiv 2304.12536) in PyTorch Lightning."""
