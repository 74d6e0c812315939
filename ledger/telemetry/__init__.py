"""What a process says of itself to whoever watches it. An aside: it imports nothing of ours."""
