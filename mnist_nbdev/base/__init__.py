"""What knows no image: files written whole or not at all, statistical bounds, settings, logging."""
