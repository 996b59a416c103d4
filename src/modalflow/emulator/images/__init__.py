"""Images: read from Dockerfile lines, installed layer by layer, kept on disk."""
