"""What a device can do, what a run costs on it, and running as the device wants it."""
