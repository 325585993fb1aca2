"""The command line, thin: it parses, calls and prints. What another program might want stands below."""
