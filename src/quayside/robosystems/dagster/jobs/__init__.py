"""The jobs of RoboSystems."""
