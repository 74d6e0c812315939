"""The main job in under a minute, on services that this program brings along."""
