"""Network architectures: tensors in, tensors out, no file."""
