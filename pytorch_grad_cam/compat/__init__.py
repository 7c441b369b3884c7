"""What classes and calls of grad-cam 1.x rely on. Internal."""
