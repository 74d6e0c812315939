"""The core: what a purchase is and when it may happen. No clock, no randomness, no I/O."""
