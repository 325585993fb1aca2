"""From arrays to an exported model, and from an image file to the network's input. Nothing of releases."""
