"""What is on disk: no runtime, no Trio."""
