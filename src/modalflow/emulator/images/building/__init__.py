"""Builds of images by running their commands, each layer a writable overlay over those below."""
