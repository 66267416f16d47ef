"""Published checkpoints to this project's format, every key accounted for."""
