"""What the tests share: runtimes, leak checks, a fake runtime."""
