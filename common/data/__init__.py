"""Data sets by name, folders of images, and people's own loaders. May import cells and system."""
