"""What differs between the detector families: how queries are made and read."""
