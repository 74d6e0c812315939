"""What lies between a function and the server: sessions, their settings, and what a server answers."""
