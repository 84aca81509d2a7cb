"""What a plugin's author may use beside the contracts and the sources."""
