"""The LightningModules (prior and classifier), and loading them."""
