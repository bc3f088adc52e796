"""The world that ships with the package: faces, their joint distribution and their renderer."""
