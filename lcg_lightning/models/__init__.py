"""The LightningModules, prior and classifier, and how they are loaded."""
