"""What starts work of RoboSystems by itself."""
